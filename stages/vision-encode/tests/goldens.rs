//! Pictures and embeddings against those of transformers, for the tiny checkpoints of `tests/goldens/vision`.
#![allow(clippy::unwrap_used)] // the functions that tests share are tests too

use std::path::{Path, PathBuf};

use models::ModelFolder;
use safetensors::SafeTensors;
use schemas::request::{BlobRef, Image};
use vision_encode::decode::decode;
use vision_encode::encoder::{Compute, Encoder, OnnxEncoder, Shape};
use vision_encode::patches::Patches;
use vision_encode::pictures::{Scale, cut};

/// What the pictures of a golden may differ by, in steps of one of 256 levels: not at all, but that JPEG decoders differ among
/// themselves where colors change.
const LEVELS: f32 = 0.01;
const LEVELS_OF_JPEG: f32 = 2.01;
const EMBEDDINGS_DIFFER: f32 = 1e-4;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vision")
}

fn floats(file: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    let numbers = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (view.shape().to_vec(), numbers)
}

fn names(file: &Path) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect()
}

/// The numbers that our pictures of `file` come to, and the size of each.
fn numbers(folder: &ModelFolder, file: &Path) -> (Vec<f32>, (u32, u32)) {
    let vision = folder.vision().unwrap();
    let content = std::fs::read(file).unwrap();
    let (width, height) = oriented_size(file);
    let image = Image { file: BlobRef { hash: [0; 32], bytes: 0 }, width, height, field: "image".into() };
    let tiling = vision.plan(width, height).unwrap().tiling;
    let pictures = cut(decode(&content, &image).unwrap(), &tiling, vision.rules().filter);
    let mut numbers = Vec::new();
    Scale::new(vision.rules()).append(
        &pictures.pixels,
        (tiling.tile.0 * tiling.tile.1) as usize,
        &mut numbers,
    );
    (numbers, tiling.tile)
}

fn oriented_size(file: &Path) -> (u32, u32) {
    let (width, height) = image::image_dimensions(file).unwrap();
    if file.ends_with("rotated.jpg") { (height, width) } else { (width, height) }
}

fn largest_difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn pictures_are_those_of_transformers() {
    for model in ["llava", "smolvlm", "qwen2_5_vl"] {
        let path = goldens().join(model);
        let folder = ModelFolder::open(&path).unwrap();
        let level =
            1.0 / 255.0 / folder.vision().unwrap().rules().std.iter().copied().fold(f32::MAX, f32::min);
        for name in names(&path.join("pixels.safetensors")) {
            // Without splitting it is another configuration, tested in `models`.
            if name.starts_with("unsplit/") {
                continue;
            }
            let (_, theirs) = floats(&path.join("pixels.safetensors"), &name);
            let (ours, size) = numbers(&folder, &goldens().join("images").join(&name));
            let ours = match folder.vision().unwrap().rules().patches() {
                Some(rules) => Patches::of(&ours, size, rules).pixels,
                None => ours,
            };
            let allowed = if name.ends_with(".jpg") { LEVELS_OF_JPEG } else { LEVELS };
            let differ = largest_difference(&ours, &theirs) / level;
            assert!(differ <= allowed, "{model} {name}: {differ} levels");
        }
    }
}

/// The encoder of `folder`, and the size of pictures where all have the same.
fn encoder(folder: &ModelFolder) -> (OnnxEncoder, (u32, u32)) {
    let shape = Shape::of(folder.vision().unwrap(), folder.config().hidden_size as u32).unwrap();
    let compute = Compute { device: "cpu".into(), threads: Some(1) };
    (OnnxEncoder::load(&folder.vision_encoder(), shape, &compute).unwrap(), shape.tile)
}

#[test]
fn embeddings_of_images_at_their_own_size_are_those_of_transformers() {
    let path = goldens().join("qwen2_5_vl");
    let folder = ModelFolder::open(&path).unwrap();
    let (mut encoder, _) = encoder(&folder);
    let mut sizes = Vec::new();
    for name in names(&path.join("embeddings.safetensors")) {
        let (pixels, size) = numbers(&folder, &goldens().join("images").join(&name));
        let (shape, theirs) = floats(&path.join("embeddings.safetensors"), &name);
        let plan = folder.vision().unwrap().plan(size.0, size.1).unwrap();
        assert_eq!((shape[1] as u32, plan.tiling.tile), (plan.rows(), size), "{name}");
        sizes.push(plan.grid.unwrap());
        // Two decoders of JPEG differ.
        let allowed = if name.ends_with(".jpg") { 0.1 } else { EMBEDDINGS_DIFFER };
        let alone = encoder.encode(&pixels, 1, size).unwrap();
        assert!(largest_difference(&alone, &theirs) < allowed, "{name}");
        let twice = encoder.encode(&[&pixels[..], &pixels[..]].concat(), 2, size).unwrap();
        assert_eq!(twice, [&alone[..], &alone[..]].concat(), "{name}");
    }
    sizes.sort_unstable();
    sizes.dedup();
    assert!(sizes.len() >= 4, "{sizes:?}");
}

#[test]
fn embeddings_are_those_of_transformers_alone_and_in_a_batch() {
    for model in ["llava", "smolvlm"] {
        let path = goldens().join(model);
        let folder = ModelFolder::open(&path).unwrap();
        let (mut encoder, size) = encoder(&folder);
        for name in
            names(&path.join("embeddings.safetensors")).iter().filter(|name| !name.starts_with("unsplit/"))
        {
            let (pixels_shape, pixels) = floats(&path.join("pixels.safetensors"), name);
            let (_, theirs) = floats(&path.join("embeddings.safetensors"), name);
            let tiles = pixels_shape[0];
            let together = encoder.encode(&pixels, tiles, size).unwrap();
            assert!(largest_difference(&together, &theirs) < EMBEDDINGS_DIFFER, "{model} {name}");
            let per_tile = pixels.len() / tiles;
            let alone: Vec<f32> =
                pixels.chunks(per_tile).flat_map(|tile| encoder.encode(tile, 1, size).unwrap()).collect();
            assert!(largest_difference(&alone, &together) < EMBEDDINGS_DIFFER, "{model} {name}");
        }
    }
}
