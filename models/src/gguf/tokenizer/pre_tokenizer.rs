//! How byte-level vocabularies cut text into words, by the names of `tokenizer.ggml.pre`.
//!
//! The names, and which of them mean the same: `src/llama-vocab.cpp` of llama.cpp. The steps: the
//! `tokenizer.json` files of the models named, and that file's regexes where it adapts them.

use serde_json::{Value, json};

use super::super::vocabulary::VocabularyError;

/// The name that an absent `tokenizer.ggml.pre` stands for.
const DEFAULT: &str = "default";

/// One way to cut text, under the names it has.
#[derive(Debug)]
pub(crate) struct PreTokenizer {
    names: &'static [&'static str],
    steps: &'static [Step],
    /// Characters are composed first (Unicode's form NFC).
    composes: bool,
    /// A word that is a token is that token, whatever the merges make of it.
    ignores_merges: bool,
    /// Texts start with the token for that, unless the file says otherwise.
    adds_bos: bool,
}

/// Cuts the pieces that the step before it left.
#[derive(Debug)]
enum Step {
    /// At matches of a regex, which are pieces themselves.
    Split(&'static str),
    /// Around each digit.
    EachDigit,
    /// Around runs of digits.
    Digits,
    /// Around runs of punctuation.
    Punctuation,
    /// Into the words of GPT-2, with bytes written as characters from here on.
    Words,
}

use Step::{Digits, EachDigit, Punctuation, Split, Words};

impl PreTokenizer {
    /// Looks a name up.
    pub(crate) fn named(name: Option<&str>) -> Result<&'static Self, VocabularyError> {
        let name = name.unwrap_or(DEFAULT);
        let found = PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name));
        found.ok_or_else(|| VocabularyError::Pre { pre: name.to_owned() })
    }

    /// All of them.
    pub(crate) fn all() -> &'static [Self] {
        PRE_TOKENIZERS
    }

    /// The name that converters write.
    pub(crate) fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or(DEFAULT)
    }

    /// Whether a word that is a token is that token at once.
    pub(crate) fn ignores_merges(&self) -> bool {
        self.ignores_merges
    }

    /// Whether texts start with the token for that when the file does not say.
    pub(crate) fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// The `normalizer` of a `tokenizer.json`.
    pub(crate) fn normalizer(&self) -> Value {
        if self.composes { json!({"type": "NFC"}) } else { Value::Null }
    }

    /// The `pre_tokenizer` of a `tokenizer.json`.
    pub(crate) fn json(&self) -> Value {
        let mut steps: Vec<Value> = self.steps.iter().map(Step::json).collect();
        if !self.steps.iter().any(|step| matches!(step, Words)) {
            steps.push(byte_level(false));
        }
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

impl Step {
    fn json(&self) -> Value {
        match self {
            Split(regex) => json!({
                "type": "Split",
                "pattern": {"Regex": regex},
                "behavior": "Isolated",
                "invert": false,
            }),
            EachDigit => json!({"type": "Digits", "individual_digits": true}),
            Digits => json!({"type": "Digits", "individual_digits": false}),
            Punctuation => json!({"type": "Punctuation", "behavior": "Contiguous"}),
            Words => byte_level(true),
        }
    }
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

/// What most entries are, apart from their names and steps.
const PLAIN: PreTokenizer =
    PreTokenizer { names: &[], steps: &[], composes: false, ignores_merges: false, adds_bos: false };

const GPT_2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

const LLAMA_3: &[Step] = &[Split(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)];

const QWEN_2: &[Step] = &[Split(QWEN_2_WORDS)];
const QWEN_2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const GPT_4O: &[Step] = &[Split(GPT_4O_WORDS)];
const GPT_4O_WORDS: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const DEEPSEEK_3: &[Step] = &[
    Split(r"\p{N}{1,3}"),
    Split("[一-龥぀-ゟ゠-ヿ]+"),
    Split(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
    ),
];

/// Letters of the scripts that have two cases, as DeepSeek's first tokenizer lists them. Those whose normal form
/// is another character are given by number.
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";

const BLOOM_WORDS: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

static PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &[DEFAULT],
        steps: &[
            Split(r"[\p{P}\$\+<=>\^~\|]+"),
            Split(GPT_2_WORDS),
            Split(r"\p{N}+"),
            Split("[0-9][0-9][0-9]"),
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "jais",
            "exaone4",
            "trillion",
            "granite-docling",
        ],
        steps: &[Words],
        ..PLAIN
    },
    PreTokenizer { names: &["mpt", "olmo"], steps: &[Words], composes: true, ..PLAIN },
    PreTokenizer {
        names: &["starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        steps: &[EachDigit, Words],
        ..PLAIN
    },
    PreTokenizer { names: &["command-r"], steps: &[EachDigit, Words], composes: true, ..PLAIN },
    PreTokenizer {
        names: &["falcon"],
        steps: &[Punctuation, Words, Digits, Split("[0-9][0-9][0-9]")],
        ..PLAIN
    },
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        steps: LLAMA_3,
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], steps: LLAMA_3, ..PLAIN },
    PreTokenizer { names: &["glm4", "glm5"], steps: LLAMA_3, ignores_merges: true, ..PLAIN },
    PreTokenizer { names: &["qwen2"], steps: QWEN_2, composes: true, ..PLAIN },
    PreTokenizer {
        names: &[
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        steps: QWEN_2,
        ..PLAIN
    },
    PreTokenizer {
        names: &["qwen35"],
        steps: &[Split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        composes: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["tekken"],
        steps: &[Split(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["gpt-4o", "llama4", "kanana2", "minimax-m2"], steps: GPT_4O, ..PLAIN },
    PreTokenizer {
        names: &["tiny_aya", "cohere2moe"],
        steps: &[Split(r"\d{1,3}(?=(?:\d{3})*\b)"), Split(GPT_4O_WORDS)],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        steps: &[
            Split("[\r\n]"),
            Split(DEEPSEEK_LETTERS),
            Split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            Split(r"\s+$"),
            Split("[一-龥ࠀ-一가-퟿]+"),
            EachDigit,
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        steps: &[
            Split("[\r\n]"),
            Split(r"\s?\p{L}+"),
            Split(r"\s?\p{P}+"),
            Split("[一-龥ࠀ-一가-퟿]+"),
            EachDigit,
        ],
        ..PLAIN
    },
    PreTokenizer { names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"], steps: DEEPSEEK_3, ..PLAIN },
    PreTokenizer { names: &["poro-chat", "bloom", "gpt3-finnish"], steps: &[Split(BLOOM_WORDS)], ..PLAIN },
    PreTokenizer { names: &["viking"], steps: &[Split(BLOOM_WORDS), EachDigit], ..PLAIN },
    PreTokenizer {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        steps: &[Split(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        )],
        ..PLAIN
    },
    PreTokenizer {
        names: &["seed-coder"],
        steps: &[Split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ..PLAIN
    },
    PreTokenizer {
        names: &["exaone-moe"],
        steps: &[Split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        )],
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pre_tokenizer_is_one_that_the_library_takes() {
        for pre in PRE_TOKENIZERS {
            let text = pre.json().to_string();
            let read: Result<tokenizers::PreTokenizerWrapper, _> = serde_json::from_str(&text);
            assert!(read.is_ok(), "{:?}: {:?}", pre.names, read.err());
        }
    }

    #[test]
    fn no_name_means_two_things() {
        let names: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|pre| pre.names).copied().collect();
        let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn an_unknown_name_is_refused_and_an_absent_one_is_the_default() {
        assert!(
            matches!(PreTokenizer::named(Some("kimi-k9")), Err(VocabularyError::Pre { pre }) if pre == "kimi-k9")
        );
        assert_eq!(PreTokenizer::named(None).unwrap().names, [DEFAULT]);
    }
}
