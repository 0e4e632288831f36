//! Server-sent events out of a byte stream.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its own id, if it has one.
    pub id: Option<String>,
    /// Its data.
    pub data: String,
}

/// Splits a byte stream into its events.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    id: Option<String>,
    data: Vec<u8>,
    has_data: bool,
}

impl Decoder {
    /// Takes the next bytes and returns every event that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                events.extend(self.finish());
            } else if let Some(data) = line.strip_prefix(b"data:") {
                self.append(data.strip_prefix(b" ").unwrap_or(data));
            } else if let Some(id) = line.strip_prefix(b"id:") {
                self.id = Some(String::from_utf8_lossy(id).trim().to_owned());
            }
        }
        events
    }

    fn append(&mut self, data: &[u8]) {
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(data);
    }

    fn finish(&mut self) -> Option<Event> {
        let (id, data) = (self.id.take(), std::mem::take(&mut self.data));
        let data = String::from_utf8_lossy(&data).into_owned();
        std::mem::take(&mut self.has_data).then_some(Event { id, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_every_cut_of_the_stream() {
        let stream =
            ": hello\n\nid: 1\ndata: {\"a\":\"é\"}\r\n\r\nevent: x\ndata:one\ndata: two\n\nid:3\ndata: [DONE]\n\n"
                .as_bytes();
        for cut in 0..=stream.len() {
            let mut decoder = Decoder::default();
            let mut events = decoder.push(&stream[..cut]);
            events.extend(decoder.push(&stream[cut..]));
            let event = |id: Option<&str>, data: &str| Event { id: id.map(str::to_owned), data: data.into() };
            let expected =
                [event(Some("1"), "{\"a\":\"é\"}"), event(None, "one\ntwo"), event(Some("3"), "[DONE]")];
            assert_eq!(events, expected, "cut at {cut}");
        }
    }
}
