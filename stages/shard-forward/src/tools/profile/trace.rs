//! A trace that Perfetto and Chrome show.
//! Source: "Trace Event Format", Google, 2016: complete events (`X`), whose times are in microseconds.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::Phase;
use crate::engine::Place;

/// A file that becomes a trace.
pub struct Trace {
    out: BufWriter<File>,
    is_first: bool,
}

impl Trace {
    /// `file` is empty.
    pub fn new(file: File) -> Self {
        Self { out: BufWriter::new(file), is_first: true }
    }

    /// Writes each phase as a process whose one thread has the parts of steps, and in them the operations.
    pub fn write(mut self, phases: &[&Phase]) -> std::io::Result<()> {
        self.out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n")?;
        for (process, phase) in (1..).zip(phases) {
            let name = json!({ "name": phase.name });
            self.event(
                &json!({ "name": "process_name", "ph": "M", "pid": process, "tid": 1, "args": name }),
            )?;
            for span in &phase.recording.spans {
                let (name, args) = (name_of(span.place), json!({}));
                self.complete(process, ("part", &name), (span.start, span.length), args)?;
            }
            for operation in &phase.recording.operations {
                let args = json!({ "flops": operation.flops, "bytes": operation.bytes });
                let name = ("operation", &*operation.name);
                self.complete(process, name, (operation.start, operation.length), args)?;
            }
        }
        self.out.write_all(b"]}\n")?;
        self.out.flush()
    }

    fn complete(
        &mut self,
        process: u32,
        (category, name): (&str, &str),
        (start, length): (Duration, Duration),
        args: Value,
    ) -> std::io::Result<()> {
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        let (start, length) = (microseconds(start), microseconds(length));
        self.event(&json!({
            "name": name, "cat": category, "ph": "X", "ts": start, "dur": length, "pid": process, "tid": 1,
            "args": args,
        }))
    }

    fn event(&mut self, event: &Value) -> std::io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.out.write_all(b",\n")?;
        }
        serde_json::to_writer(&mut self.out, event)?;
        Ok(())
    }
}

fn name_of(place: Place) -> String {
    match place {
        Place::Embedding => "embedding".to_owned(),
        Place::Plan => "plan".to_owned(),
        Place::Layer(layer) => format!("layer {layer}"),
        Place::Head => "head".to_owned(),
        Place::Rows => "candidates".to_owned(),
        Place::Outside => "outside".to_owned(),
    }
}
