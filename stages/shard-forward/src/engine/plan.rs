//! Which decoder layers each shard holds.

use std::ops::Range;

/// How a model's decoder layers are split over shards, in layer order.
///
/// Every shard has at least one layer, and the shards' layers are all of the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlan {
    layers: Vec<u32>,
}

/// A layer plan that does not fit the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No shards, or more than layers.
    #[error("`shards` is {shards}, but a model of {n_layers} layers takes 1 to {n_layers}")]
    Shards {
        /// The number asked for.
        shards: u16,
        /// The model's layers.
        n_layers: u32,
    },
    /// A shard without layers.
    #[error("`layers` gives shard {shard} no layer: {layers:?}")]
    EmptyShard {
        /// The first such shard.
        shard: usize,
        /// The list.
        layers: Vec<u32>,
    },
    /// The list does not add up.
    #[error("`layers` {layers:?} adds up to {sum}, but the model has {n_layers} layers")]
    Sum {
        /// The list.
        layers: Vec<u32>,
        /// Its sum.
        sum: u64,
        /// The model's layers.
        n_layers: u32,
    },
    /// A shard that the plan does not have.
    #[error("`shard` is {shard}, but the plan has shards 0 to {last}")]
    NoSuchShard {
        /// The number asked for.
        shard: u16,
        /// The plan's last.
        last: u16,
    },
}

impl LayerPlan {
    /// Splits `n_layers` as evenly as possible. The first shards take one more where it does not come out even: the last
    /// one also has the output projection to do.
    pub fn even(n_layers: u32, shards: u16) -> Result<Self, PlanError> {
        let n_shards = u32::from(shards);
        if n_shards == 0 || n_shards > n_layers {
            return Err(PlanError::Shards { shards, n_layers });
        }
        let layers =
            (0..n_shards).map(|shard| n_layers / n_shards + u32::from(shard < n_layers % n_shards)).collect();
        Ok(Self { layers })
    }

    /// Takes the number of layers of each shard as given.
    pub fn explicit(n_layers: u32, layers: Vec<u32>) -> Result<Self, PlanError> {
        if let Some(shard) = layers.iter().position(|&n| n == 0) {
            return Err(PlanError::EmptyShard { shard, layers });
        }
        let sum: u64 = layers.iter().map(|&n| u64::from(n)).sum();
        if sum != u64::from(n_layers) || layers.len() > usize::from(u16::MAX) {
            return Err(PlanError::Sum { layers, sum, n_layers });
        }
        Ok(Self { layers })
    }

    /// How many shards.
    pub fn shards(&self) -> u16 {
        self.layers.len() as u16
    }

    /// How many layers each shard has.
    pub fn layers(&self) -> &[u32] {
        &self.layers
    }

    /// The layers of one shard.
    pub fn range(&self, shard: u16) -> Result<Range<u32>, PlanError> {
        let index = usize::from(shard);
        let Some(&n) = self.layers.get(index) else {
            return Err(PlanError::NoSuchShard { shard, last: self.shards() - 1 });
        };
        let start = self.layers[..index].iter().sum();
        Ok(start..start + n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_plans_cover_every_layer_once() {
        for (n_layers, shards) in [(1, 1), (4, 2), (5, 2), (7, 3), (12, 5)] {
            let plan = LayerPlan::even(n_layers, shards).unwrap();
            let covered: Vec<u32> = (0..shards).flat_map(|shard| plan.range(shard).unwrap()).collect();
            assert_eq!(covered, (0..n_layers).collect::<Vec<_>>());
        }
    }

    #[test]
    fn plans_that_do_not_fit_the_model_name_the_field() {
        let errors = [
            LayerPlan::even(4, 0).unwrap_err(),
            LayerPlan::even(4, 5).unwrap_err(),
            LayerPlan::explicit(4, vec![]).unwrap_err(),
            LayerPlan::explicit(4, vec![4, 0]).unwrap_err(),
            LayerPlan::explicit(4, vec![3, 2]).unwrap_err(),
            LayerPlan::even(4, 2).unwrap().range(2).unwrap_err(),
        ];
        for error in errors {
            assert!(
                error.to_string().contains("`shard") || error.to_string().contains("`layers`"),
                "{error}"
            );
        }
    }
}
