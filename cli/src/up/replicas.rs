//! `--replicas STAGE=N`.

use std::str::FromStr;

use schemas::Role;

const STAGES: [&str; 5] = ["tokenize", "vision-encode", "shard-forward", "sample", "detokenize"];

/// How many processes a stage, or one shard of it, gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// The stage, as in pipeline files.
    pub stage: String,
    /// One shard of `shard-forward`, else all.
    pub shard: Option<u16>,
    /// Processes; 0 leaves the stage to be started by hand.
    pub count: u32,
}

impl Replicas {
    /// Whether this is about `role`.
    pub fn applies_to(&self, role: Role) -> bool {
        let shard_matches = match (self.shard, role) {
            (Some(wanted), Role::ShardForward(shard)) => wanted == shard,
            (wanted, _) => wanted.is_none(),
        };
        self.stage == role.binary() && shard_matches
    }
}

impl FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("must be STAGE=N or shard-forward.SHARD=N, STAGE one of {}", STAGES.join(", "));
        let (name, count) = text.split_once('=').ok_or_else(form)?;
        let count = count.parse().map_err(|_| form())?;
        let (stage, shard) = match name.split_once('.') {
            Some(("shard-forward", shard)) => ("shard-forward", Some(shard.parse().map_err(|_| form())?)),
            Some(_) => return Err(form()),
            None => (name, None),
        };
        if !STAGES.contains(&stage) {
            return Err(form());
        }
        Ok(Self { stage: stage.to_owned(), shard, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_or_one_shard_can_be_counted() {
        let all: Replicas = "shard-forward=3".parse().unwrap();
        assert!(all.applies_to(Role::ShardForward(0)) && all.applies_to(Role::ShardForward(7)));
        assert!(!all.applies_to(Role::Sample));
        let one: Replicas = "shard-forward.1=2".parse().unwrap();
        assert_eq!((one.shard, one.count), (Some(1), 2));
        assert!(one.applies_to(Role::ShardForward(1)) && !one.applies_to(Role::ShardForward(0)));
        assert_eq!("sample=0".parse::<Replicas>().unwrap().count, 0);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["sample", "sample=", "sample=-1", "gateway=2", "sample.0=2", "shard-forward.x=1", "=1"] {
            assert!(text.parse::<Replicas>().is_err(), "{text}");
        }
    }
}
