//! Which type each tensor is stored in, when most are to be of one.
//! Source: `tensor_type_fallback` and `llama_tensor_get_type_impl` of `llama-quant.cpp`; `enum llama_ftype` of `llama.h`.

use super::plan::{Content, PlannedTensor};
use crate::gguf::TensorType;

/// What the matrices of a file are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileType {
    /// Its name on the command line.
    pub name: &'static str,
    /// The type of most matrices.
    pub tensor_type: TensorType,
    /// `general.file_type`: of llama.cpp's mixtures, the one that has the fewest other types.
    pub id: u32,
}

/// All that can be written.
pub const FILE_TYPES: [FileType; 17] = [
    FileType { name: "f32", tensor_type: TensorType::F32, id: 0 },
    FileType { name: "f16", tensor_type: TensorType::F16, id: 1 },
    FileType { name: "bf16", tensor_type: TensorType::BF16, id: 32 },
    FileType { name: "q8_0", tensor_type: TensorType::Q8_0, id: 7 },
    FileType { name: "q4_0", tensor_type: TensorType::Q4_0, id: 2 },
    FileType { name: "q4_1", tensor_type: TensorType::Q4_1, id: 3 },
    FileType { name: "q5_0", tensor_type: TensorType::Q5_0, id: 8 },
    FileType { name: "q5_1", tensor_type: TensorType::Q5_1, id: 9 },
    FileType { name: "q2_k", tensor_type: TensorType::Q2_K, id: 10 },
    FileType { name: "q3_k", tensor_type: TensorType::Q3_K, id: 11 },
    FileType { name: "q4_k", tensor_type: TensorType::Q4_K, id: 14 },
    FileType { name: "q5_k", tensor_type: TensorType::Q5_K, id: 16 },
    FileType { name: "q6_k", tensor_type: TensorType::Q6_K, id: 18 },
    FileType { name: "tq1_0", tensor_type: TensorType::TQ1_0, id: 36 },
    FileType { name: "tq2_0", tensor_type: TensorType::TQ2_0, id: 37 },
    FileType { name: "iq4_nl", tensor_type: TensorType::IQ4_NL, id: 25 },
    FileType { name: "iq4_xs", tensor_type: TensorType::IQ4_XS, id: 30 },
];

/// Matrices within a layer; experts are stacks of them.
const MATRICES: [&str; 14] = [
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_qkv",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
    "ffn_gate_exps",
    "ffn_up_exps",
    "ffn_down_exps",
    "ffn_gate_shexp",
    "ffn_up_shexp",
    "ffn_down_shexp",
];

impl FileType {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        FILE_TYPES.into_iter().find(|file_type| file_type.name == name)
    }

    /// Whether it is made of blocks that share a scale.
    pub fn is_quantised(self) -> bool {
        self.tensor_type.block().is_some_and(|block| block.elements > 1)
    }

    /// The type of one tensor. Vectors, norms and routers keep 32 bits; embedding and head, which suffer most, have 6 bits or
    /// more; rows that are no whole blocks get smaller blocks, and then none. Numbers that are no weights, and tensors of which
    /// nothing is known, as another architecture's GGUF may have them, stay what they are.
    pub fn of_tensor(self, tensor: &PlannedTensor) -> TensorType {
        let name = tensor.name.as_str();
        let source = match &tensor.content {
            Content::Stored { parts, .. } => parts.first().map_or(TensorType::F32, |part| part.tensor_type),
            Content::Numbers(_) => TensorType::F32,
        };
        let row = match tensor.shape.as_slice() {
            _ if !is_weight(source) => return source,
            [] | [_] => return TensorType::F32,
            [.., row] => *row,
        };
        if name.ends_with("_norm.weight") || name.ends_with("ffn_gate_inp.weight") {
            return TensorType::F32;
        }
        if !is_matrix(name) {
            return source;
        }
        let is_end = matches!(name, "token_embd.weight" | "output.weight");
        let wanted = match self.tensor_type {
            TensorType::Q8_0 => TensorType::Q8_0,
            _ if is_end && self.is_quantised() => TensorType::Q6_K,
            wanted => wanted,
        };
        [wanted, fallback(wanted)].into_iter().find(|kind| fits(*kind, row)).unwrap_or(TensorType::F16)
    }
}

/// Whether its elements may be weights.
fn is_weight(tensor_type: TensorType) -> bool {
    let is_block = tensor_type.block().is_some_and(|block| block.elements > 1);
    is_block || matches!(tensor_type, TensorType::F32 | TensorType::F16 | TensorType::BF16)
}

/// Whether a tensor is a matrix that rows of activations are multiplied by, or the embedding.
fn is_matrix(name: &str) -> bool {
    let module = name.strip_suffix(".weight").unwrap_or_default();
    let layer = module.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    match layer {
        None => matches!(module, "token_embd" | "output"),
        Some((_, inside)) => MATRICES.contains(&inside),
    }
}

fn fits(tensor_type: TensorType, row: usize) -> bool {
    tensor_type.block().is_some_and(|block| row.is_multiple_of(block.elements))
}

/// What takes the place of a type with blocks of 256: one with blocks of 32 and as many bits or more.
fn fallback(tensor_type: TensorType) -> TensorType {
    match tensor_type {
        TensorType::Q2_K | TensorType::Q3_K | TensorType::TQ1_0 | TensorType::TQ2_0 => TensorType::Q4_0,
        TensorType::Q4_K => TensorType::Q5_0,
        TensorType::Q5_K => TensorType::Q5_1,
        TensorType::Q6_K => TensorType::Q8_0,
        TensorType::IQ4_XS => TensorType::IQ4_NL,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(file_type: &str, name: &str, shape: &[usize]) -> TensorType {
        let content = Content::Numbers(Vec::new());
        let tensor = PlannedTensor { name: name.to_owned(), shape: shape.to_vec(), content };
        FileType::named(file_type).unwrap().of_tensor(&tensor)
    }

    #[test]
    fn rows_that_are_no_whole_blocks_have_smaller_ones() {
        let up = "blk.0.ffn_up.weight";
        let cases = [
            ("q4_k", 512, TensorType::Q4_K),
            ("q4_k", 192, TensorType::Q5_0),
            ("q5_k", 192, TensorType::Q5_1),
            ("q6_k", 192, TensorType::Q8_0),
            ("q2_k", 192, TensorType::Q4_0),
            ("q3_k", 192, TensorType::Q4_0),
            ("tq1_0", 192, TensorType::Q4_0),
            ("iq4_xs", 192, TensorType::IQ4_NL),
            ("q4_k", 100, TensorType::F16),
            ("q8_0", 100, TensorType::F16),
            ("bf16", 100, TensorType::BF16),
        ];
        for (file_type, row, expected) in cases {
            assert_eq!(stored(file_type, up, &[7, row]), expected, "{file_type} {row}");
        }
    }

    #[test]
    fn vectors_and_routers_keep_32_bits_and_embedding_and_head_have_6_bits() {
        assert_eq!(stored("q4_k", "output_norm.weight", &[512]), TensorType::F32);
        assert_eq!(stored("f16", "blk.0.attn_q.bias", &[512]), TensorType::F32);
        assert_eq!(stored("q4_0", "blk.0.ffn_gate_inp.weight", &[8, 512]), TensorType::F32);
        assert_eq!(stored("q4_k", "blk.0.ffn_up_exps.weight", &[8, 64, 512]), TensorType::Q4_K);
        assert_eq!(stored("q4_k", "output.weight", &[9, 512]), TensorType::Q6_K);
        assert_eq!(stored("q4_0", "token_embd.weight", &[9, 192]), TensorType::Q8_0);
        assert_eq!(stored("q8_0", "token_embd.weight", &[9, 512]), TensorType::Q8_0);
        assert_eq!(stored("f16", "token_embd.weight", &[9, 512]), TensorType::F16);
        assert_eq!(stored("q4_k", "blk.0.ssm_conv1d.weight", &[9, 512]), TensorType::F32);
    }

    #[test]
    fn names_and_numbers_are_told_apart() {
        let names: std::collections::BTreeSet<&str> = FILE_TYPES.iter().map(|kind| kind.name).collect();
        let ids: std::collections::BTreeSet<u32> = FILE_TYPES.iter().map(|kind| kind.id).collect();
        assert_eq!((names.len(), ids.len()), (FILE_TYPES.len(), FILE_TYPES.len()));
        assert!(FileType::named("q4_2").is_none());
    }
}
