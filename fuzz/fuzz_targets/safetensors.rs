//! Any bytes as `model.safetensors`: an error, or weights, and no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use models::Weights;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("model.safetensors"), bytes).expect("a temporary file");
    let Ok(weights) = Weights::open(folder.path()) else { return };
    for name in weights.names() {
        if let Ok(shared) = weights.get_shared(name) {
            assert!(shared.bytes().len() <= bytes.len());
        }
    }
});
