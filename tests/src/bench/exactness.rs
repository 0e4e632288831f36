//! How often an answer differs from an undisturbed run of the same question, and what it costs that it never does.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use models::{ModelFolder, TemplateInput};
use pipelines::graph::{DTypeName, ShardForward};
use serde_json::{Map, Value, json};

use crate::bench::answers::{Answerer, Question, pipeline};
use crate::bench::direct::Direct;
use crate::bench::exactness_report::{Case, Cost, Differences, ExactnessReport, Sides};
use crate::bench::model;
use crate::bench::random::Random;
use crate::bench::workload::Workload;
use crate::process::repository;

const DTYPES: [DTypeName; 2] = [DTypeName::F32, DTypeName::Bf16];
/// Answers that are computed together where they are not computed alone.
const BATCH: usize = 8;
const PROMPT_TOKENS: u32 = 64;
const BATCHES: [u32; 3] = [1, 8, 32];

/// What is measured.
#[derive(Debug, Clone)]
pub struct ExactnessBench {
    /// Answers of the model of random weights in each case; of the demo model, five times as many.
    pub answers: usize,
    /// Tokens of each of those answers.
    pub tokens: usize,
    /// Decode steps of each measurement of speed.
    pub steps: u32,
    /// How often each speed is measured.
    pub rounds: u32,
    /// Where the model of random weights is kept between runs.
    pub cache: PathBuf,
}

/// A model with what it is asked.
struct Subject {
    name: &'static str,
    folder: PathBuf,
    prompts: Vec<Vec<u32>>,
}

/// Tokens a second of one run.
struct Rates {
    prefill: f64,
    decode: f64,
}

impl ExactnessBench {
    /// Measures.
    pub fn run(&self) -> anyhow::Result<ExactnessReport> {
        let threads = std::thread::available_parallelism()?.get();
        let random = model::cached(&self.cache)?;
        let mut cases = Vec::new();
        for subject in [Subject::random(&random, self.answers), Subject::demo(5 * self.answers)?] {
            for dtype in DTYPES {
                for deterministic in [false, true] {
                    cases.extend(self.compare(&subject, dtype, deterministic)?);
                }
            }
        }
        let mut costs = Vec::new();
        for dtype in DTYPES {
            costs.extend(self.cost(&random, dtype)?);
        }
        Ok(ExactnessReport { threads, batch: BATCH, rounds: self.rounds, cases, costs })
    }

    /// Every question alone, then in batches, then alone from a random position on; greedily and at temperature 1.
    fn compare(&self, subject: &Subject, dtype: DTypeName, deterministic: bool) -> anyhow::Result<Vec<Case>> {
        let settings = ShardForward { dtype, deterministic, ..ShardForward::default() };
        let mut model = Answerer::load(&pipeline(subject.folder.clone(), settings))?;
        let mut cases = Vec::new();
        for temperature in [0.0, 1.0] {
            let questions = (0..).zip(&subject.prompts).map(|(seed, prompt)| Question {
                prompt: prompt.clone(),
                delivered: Vec::new(),
                tokens: self.tokens,
                temperature,
                seed,
            });
            let questions: Vec<Question> = questions.collect();
            let alone = each_alone(&mut model, &questions)?;
            let mut batched = Vec::new();
            for group in questions.chunks(BATCH) {
                batched.extend(model.answer(group)?);
            }
            let mut random = Random::new(1);
            let interrupted = questions.into_iter().zip(&alone).map(|(question, answer)| {
                let position = 1 + random.below(self.tokens as u64 - 1) as usize;
                Question { delivered: answer[..position].to_vec(), ..question }
            });
            let interrupted: Vec<Question> = interrupted.collect();
            let resumed = each_alone(&mut model, &interrupted)?;
            let starts = interrupted.iter().map(|question| question.delivered.len());
            let case = Case {
                model: subject.name,
                dtype,
                deterministic,
                temperature,
                batched: Differences::count(alone.iter().zip(&batched).map(|(a, b)| (a, b, 0))),
                resumed: Differences::count(
                    alone.iter().zip(&resumed).zip(starts).map(|((a, b), from)| (a, b, from)),
                ),
            };
            eprintln!("bench: {case}");
            cases.push(case);
        }
        Ok(cases)
    }

    /// Both modes in one process, in turns.
    fn cost(&self, folder: &Path, dtype: DTypeName) -> anyhow::Result<Vec<Cost>> {
        let load = |deterministic| {
            let settings = ShardForward { dtype, deterministic, ..ShardForward::default() };
            Direct::load(&pipeline(folder.to_owned(), settings))
        };
        let (mut default, mut deterministic) = (load(false)?, load(true)?);
        let mut costs = Vec::new();
        for batch in BATCHES {
            let mut rates = Vec::new();
            for round in 0..self.rounds {
                // ABBA: what drifts while the bench runs weighs on both sides alike.
                if round % 2 == 0 {
                    let first = self.rates(&mut default, batch)?;
                    rates.push((first, self.rates(&mut deterministic, batch)?));
                } else {
                    let first = self.rates(&mut deterministic, batch)?;
                    rates.push((self.rates(&mut default, batch)?, first));
                }
            }
            let sides = |of: fn(&Rates) -> f64| Sides::new(rates.iter().map(|(a, b)| (of(a), of(b))));
            let (prefill, decode) = (sides(|rates| rates.prefill), sides(|rates| rates.decode));
            let cost = Cost { dtype, batch, prefill, decode };
            eprintln!("bench: {cost}");
            costs.push(cost);
        }
        Ok(costs)
    }

    fn rates(&self, direct: &mut Direct, batch: u32) -> anyhow::Result<Rates> {
        let work = Workload {
            batch,
            prompt_tokens: PROMPT_TOKENS,
            steps: self.steps,
            round: 0,
            vocabulary: model::VOCABULARY,
        };
        let arrivals = direct.generate(&work)?;
        let prefill_seconds = arrivals.firsts().fold(0.0, f64::max);
        let prefill = f64::from(batch * PROMPT_TOKENS) / prefill_seconds;
        Ok(Rates { prefill, decode: arrivals.decode_rate() })
    }
}

fn each_alone(model: &mut Answerer, questions: &[Question]) -> anyhow::Result<Vec<Vec<u32>>> {
    let answers = questions.chunks(1).map(|question| model.answer(question));
    answers.collect::<anyhow::Result<Vec<_>>>().map(|answers| answers.into_iter().flatten().collect())
}

impl Subject {
    /// The model of random weights with random prompts.
    fn random(folder: &Path, count: usize) -> Self {
        let work = Workload {
            batch: count as u32,
            prompt_tokens: PROMPT_TOKENS,
            steps: 0,
            round: 0,
            vocabulary: model::VOCABULARY,
        };
        Self { name: "random 125M", folder: folder.to_owned(), prompts: work.prompts() }
    }

    /// The demo model with questions of its held-out set, evenly spaced over it.
    fn demo(count: usize) -> anyhow::Result<Self> {
        let path = repository().join("models/demo");
        let folder = ModelFolder::open(&path)?;
        let tokenizer = folder.load_tokenizer()?;
        let template = folder.load_chat_template()?.context("the demo model has a chat template")?;
        let lines = std::fs::read_to_string(path.join("heldout.jsonl"))?;
        let lines: Vec<&str> = lines.lines().collect();
        let mut prompts = Vec::new();
        for line in lines.iter().step_by((lines.len() / count.max(1)).max(1)).take(count) {
            let case: Value = serde_json::from_str(line)?;
            let messages = json!([{"role": "user", "content": case["prompt"]}]);
            let text = template.render(&TemplateInput {
                messages: &messages,
                tools: None,
                add_generation_prompt: true,
                extra: &Map::new(),
                now_unix: 0,
            })?;
            prompts.push(tokenizer.encode(&text, false)?);
        }
        Ok(Self { name: "demo", folder: path, prompts })
    }
}
