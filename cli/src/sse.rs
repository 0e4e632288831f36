//! Server-sent events out of a byte stream.

/// Splits a byte stream into the data of its events.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl Decoder {
    /// Takes the next bytes and returns the data of every event that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
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

    fn finish(&mut self) -> Option<String> {
        let data = std::mem::take(&mut self.data);
        std::mem::take(&mut self.has_data).then(|| String::from_utf8_lossy(&data).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_every_cut_of_the_stream() {
        let stream =
            ": hello\n\ndata: {\"a\":\"é\"}\r\n\r\nevent: x\ndata:one\ndata: two\n\ndata: [DONE]\n\n"
                .as_bytes();
        for cut in 0..=stream.len() {
            let mut decoder = Decoder::default();
            let mut events = decoder.push(&stream[..cut]);
            events.extend(decoder.push(&stream[cut..]));
            assert_eq!(events, ["{\"a\":\"é\"}", "one\ntwo", "[DONE]"], "cut at {cut}");
        }
    }
}
