//! Any bytes as a GGUF: an error, or tensors and a configuration, and a plan to repair it or none; no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use models::gguf::repair::Repair;
use models::gguf::{Gguf, read_config};

fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a temporary file");
    if let Ok(repair) = Repair::plan(file.path()) {
        assert!(repair.bytes() <= bytes.len() as u64);
    }
    let Ok(gguf) = Gguf::open(file.path()) else { return };
    for tensor in gguf.tensors() {
        if let Ok(shared) = gguf.get_shared(&tensor.name) {
            assert!(shared.bytes().len() <= bytes.len());
        }
    }
    let _ = read_config(&gguf);
});
