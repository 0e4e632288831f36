//! Temporary.
#![allow(unsafe_code, missing_docs)]
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use models::{LlamaConfig, Weights};
use schemas::hidden::Slice;
use schemas::{DType, SequenceId};
use shard_forward::engine::*;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let folder = Path::new(&args[1]);
    let dtype = if args[2] == "f32" { DType::F32 } else { DType::Bf16 };
    let threads: usize = args[3].parse().unwrap();
    let batches: Vec<usize> = args[4].split(',').map(|x| x.parse().unwrap()).collect();
    let contexts: Vec<u32> = args[5].split(',').map(|x| x.parse().unwrap()).collect();
    let steps: u32 = args[6].parse().unwrap();
    // optional: shard k of n, ping-pong over stdin/stdout
    let config = LlamaConfig::from_json(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let weights = Weights::open(folder).unwrap();
    let shards: u16 = args.get(7).map_or(1, |x| x.parse().unwrap());
    let mine: Option<u16> = args.get(8).map(|x| x.parse().unwrap());
    let plan = LayerPlan::even(config.num_hidden_layers as u32, shards).unwrap();
    let options = EngineOptions {
        dtype,
        device: ComputeDevice::Cpu,
        kv_tokens: 32768,
        block_tokens: 16,
        threads: Some(threads),
    };
    let range = mine.map_or(0..shards, |k| k..k + 1);
    let t = Instant::now();
    let mut chain: Vec<LlamaShard> =
        range.map(|k| LlamaShard::from_weights(&config, &weights, &plan, k, &options).unwrap()).collect();
    eprintln!("loaded in {:?}", t.elapsed());
    for &b in &batches {
        for &l in &contexts {
            for s in 0..b {
                let ids: Vec<u32> = (0..l).map(|i| (i * 7 + s as u32) % config.vocab_size as u32).collect();
                let t = Instant::now();
                run(
                    &mut chain,
                    mine,
                    shards,
                    &config,
                    &[Slice { sequence: SequenceId(s as u64), start: 0, ids, sample: false }],
                );
                if s == 0 && mine.is_none() {
                    println!("prefill {l}: {:.1} ms", t.elapsed().as_secs_f64() * 1e3);
                }
            }
            let mut times = Vec::new();
            let mut cpu = Vec::new();
            for i in 0..steps {
                let slices: Vec<Slice> = (0..b)
                    .map(|s| Slice {
                        sequence: SequenceId(s as u64),
                        start: l + i,
                        ids: vec![(i * 31 + s as u32) % config.vocab_size as u32],
                        sample: true,
                    })
                    .collect();
                let t = Instant::now();
                let c = cpu_ms();
                run(&mut chain, mine, shards, &config, &slices);
                times.push(t.elapsed().as_secs_f64() * 1e3);
                cpu.push(cpu_ms() - c);
            }
            times.sort_by(f64::total_cmp);
            cpu.sort_by(f64::total_cmp);
            let (cmin, cmed) = (cpu[0], cpu[cpu.len() / 2]);
            let (min, q1, med) = (times[0], times[times.len() / 4], times[times.len() / 2]);
            if mine.is_none_or(|k| k + 1 == shards) {
                eprintln!(
                    "B {b} L {l}: min {min:.2} q1 {q1:.2} median {med:.2} ms; cpu min {cmin:.2} med {cmed:.2}; {:.0} tok/s at q1",
                    b as f64 / q1 * 1e3
                );
            }
            for s in 0..b {
                chain.iter_mut().for_each(|e| e.release(SequenceId(s as u64)));
            }
        }
    }
}

fn cpu_ms() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 / 1e6
}

fn run(chain: &mut [LlamaShard], mine: Option<u16>, shards: u16, config: &LlamaConfig, slices: &[Slice]) {
    let rows =
        vec![RowSpec { candidates: 1, ..RowSpec::default() }; slices.iter().filter(|s| s.sample).count()];
    let batch = StepBatch { slices, rows: &rows };
    let Some(k) = mine else {
        let mut states = None;
        for e in chain {
            match e.forward(&batch, states.as_ref()).unwrap() {
                StepOutput::Hidden(h) => states = h,
                StepOutput::Rows(_) => return,
            }
        }
        return;
    };
    // Shard 0 computes first, waits for the token; shard 1 waits for a byte then computes: in turn, by pipes.
    let n: usize = slices.iter().map(|s| s.ids.len()).sum();
    let size = if std::env::args().nth(2).unwrap() == "f32" { 4 } else { 2 };
    let dtype = if size == 4 { DType::F32 } else { DType::Bf16 };
    let mut bytes = vec![0u8; n * config.hidden_size * size];
    if k == 0 {
        if let StepOutput::Hidden(Some(h)) = chain[0].forward(&batch, None).unwrap() {
            std::io::stdout().write_all(h.data()).unwrap();
            std::io::stdout().flush().unwrap();
        }
        let mut one = [0u8; 1];
        std::io::stdin().read_exact(&mut one).unwrap();
    } else {
        std::io::stdin().read_exact(&mut bytes).unwrap();
        let states =
            schemas::Tensor::new(dtype, vec![n as u32, config.hidden_size as u32], bytes.into()).unwrap();
        chain[0].forward(&batch, Some(&states)).unwrap();
        std::io::stdout().write_all(&[1]).unwrap();
        std::io::stdout().flush().unwrap();
    }
    let _ = shards;
}
