//! How much memory a model takes, and how much there is.

use serde::Serialize;

/// Bytes of an element in bf16.
pub const BF16_BYTES: u64 = 2;

/// Bytes of an element in f32.
pub const F32_BYTES: u64 = 4;

/// What one token takes in the KV cache: a key and a value for each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvShape {
    /// Decoder layers.
    pub layers: u64,
    /// Key and value heads of a layer.
    pub kv_heads: u64,
    /// Elements of a head.
    pub head_dim: u64,
}

impl KvShape {
    /// Bytes for this many tokens; none where that is beyond 64 bits. A window saves nothing: whole sequences are kept.
    pub fn bytes(&self, tokens: u64, element_bytes: u64) -> Option<u64> {
        let factors = [self.layers, self.kv_heads, self.head_dim, element_bytes, tokens];
        factors.into_iter().try_fold(2_u64, u64::checked_mul)
    }
}

/// The memory that can be had without swapping, from the content of `/proc/meminfo`.
pub fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// `1536` as `1.5 KiB`.
pub fn human_bytes(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], " ")
}

/// `1500000` as `1.5M`.
pub fn human_count(count: u64) -> String {
    scaled(count, 1000.0, &["", "K", "M", "B", "T", "Q"], "")
}

fn scaled(number: u64, step: f64, units: &[&str], space: &str) -> String {
    let (mut scaled, mut unit) = (number as f64, 0);
    // What would be rounded up to a whole step is one.
    while scaled >= step - 0.05 && unit + 1 < units.len() {
        scaled /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{scaled:.digits$}{space}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kv_cache_is_two_tensors_a_layer_and_never_overflows() {
        // Llama 3 8B: 128 KiB a token in bf16.
        let llama = KvShape { layers: 32, kv_heads: 8, head_dim: 128 };
        assert_eq!(llama.bytes(1, BF16_BYTES), Some(128 << 10));
        assert_eq!(llama.bytes(8192, BF16_BYTES), Some(1 << 30));
        let hostile = KvShape { layers: u64::MAX, ..llama };
        assert_eq!(hostile.bytes(2048, F32_BYTES), None);
    }

    #[test]
    fn available_memory_is_read_in_bytes() {
        assert_eq!(available_bytes("MemTotal: 1 kB\nMemAvailable:   2097152 kB\n"), Some(2 << 30));
        assert_eq!(available_bytes(""), None);
        assert_eq!(available_bytes("MemAvailable: 99999999999999999 kB\n"), None);
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        let bytes = [0, 1023, 1024, 1536, (1 << 20) - 1, 5 << 30, u64::MAX].map(human_bytes);
        assert_eq!(bytes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB", "16.0 EiB"]);
        let counts = [12, 1_500_000, 8_030_261_248].map(human_count);
        assert_eq!(counts, ["12", "1.5M", "8.0B"]);
    }
}
