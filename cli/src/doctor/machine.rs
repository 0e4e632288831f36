//! Processor, memory, disk, port, demo model.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use super::Check;
use crate::client::Client;
use crate::last::Last;
use crate::{locate, memory};

/// All processes of the demo pipeline together.
const DEMO_MEMORY_MIB: u64 = 1536;

/// Downloads and what is unpacked from them.
const DEPS_DISK_MIB: u64 = 2048;

const PORT: u16 = 8080;
const FEATURES: [&str; 8] =
    ["avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"];

/// Looks at the machine.
pub async fn check() -> Vec<Check> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    vec![cores(), features(&cpuinfo), room(&meminfo), disk(), model(), port().await]
}

fn cores() -> Check {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => Check::warn("processors", "1", "stages and model share it; expect half the speed"),
        count => Check::ok("processors", count.to_string()),
    }
}

fn features(cpuinfo: &str) -> Check {
    let name = "instructions";
    let Some(flags) = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")) else {
        return Check::ok(name, std::env::consts::ARCH);
    };
    let has: Vec<_> = FEATURES
        .into_iter()
        .filter(|feature| flags.split_whitespace().any(|flag| flag == *feature))
        .collect();
    let found = if has.is_empty() { "none of the wide ones".to_owned() } else { has.join(" ") };
    if !has.contains(&"avx2") {
        return Check::warn(name, found, "without AVX2 the model computes slowly");
    }
    if !has.contains(&"avx512_bf16") && !has.contains(&"amx_bf16") {
        return Check::warn(name, found, "no bf16 arithmetic: compare with `--dtype f32`");
    }
    Check::ok(name, found)
}

fn room(meminfo: &str) -> Check {
    let name = "memory";
    let Some(available) = memory::available_bytes(meminfo).map(|bytes| bytes >> 20) else {
        return Check::warn(name, "not known", format!("the demo needs {DEMO_MEMORY_MIB} MiB"));
    };
    let found = format!("{available} MiB available");
    if available < DEMO_MEMORY_MIB {
        return Check::warn(name, found, format!("the demo needs up to {DEMO_MEMORY_MIB} MiB"));
    }
    Check::ok(name, found)
}

fn disk() -> Check {
    let name = "disk for .deps";
    if locate::in_repository(Path::new(".deps/libtorch")).is_some() {
        return Check::ok(name, "installed already");
    }
    match rustix::fs::statvfs(".").map(|disk| (disk.f_bavail * disk.f_frsize) >> 20) {
        Ok(free) if free >= DEPS_DISK_MIB => Check::ok(name, format!("{free} MiB free")),
        Ok(free) => Check::warn(
            name,
            format!("{free} MiB free"),
            format!("`make setup` needs {DEPS_DISK_MIB} MiB here"),
        ),
        Err(error) => Check::warn(name, error.to_string(), "look with `df -h .`"),
    }
}

fn model() -> Check {
    let name = "demo model";
    match locate::in_repository(Path::new("models/demo/config.json")) {
        Some(file) => Check::ok(name, file.parent().unwrap_or(&file).display().to_string()),
        None => Check::warn(
            name,
            "not here",
            "run in the repository, or serve another: `tokenway up --model PATH`",
        ),
    }
}

async fn port() -> Check {
    let name = format!("port {PORT}");
    if TcpListener::bind(("127.0.0.1", PORT)).is_ok() {
        return Check::ok(name, "free");
    }
    let own = Last::read().and_then(|last| last.http).filter(|url| url.ends_with(&format!(":{PORT}")));
    if let Some(url) = own {
        let answers = match Client::new(&url, None) {
            Ok(client) => client.models().await.is_ok(),
            Err(_) => false,
        };
        if answers {
            return Check::ok(name, "a running `tokenway up` has it");
        }
    }
    let advice = format!("choose another: `tokenway up --http 127.0.0.1:{}`", PORT + 1);
    Check::warn(name, "taken", advice)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn memory_that_is_short_or_not_known_is_warned_of() {
        assert_eq!(room("MemAvailable: 2097152 kB\n").level, Level::Ok);
        assert_eq!(room("MemAvailable: 1024 kB\n").level, Level::Warn);
        assert_eq!(room("").level, Level::Warn);
    }

    #[test]
    fn features_are_whole_words() {
        let found = features("flags\t\t: fpu avx512f_x avx2 avx512_bf16\n").found;
        assert_eq!(found, "avx2 avx512_bf16");
        assert_eq!(features("flags : sse2\n").level, Level::Warn);
    }
}
