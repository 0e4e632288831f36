//! From an image file to pixels. Nothing of the file is believed: its header must agree with what the door read of it before
//! anything is allocated for its pixels.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, Rgb, RgbImage, RgbaImage};
use schemas::request::Image;
use schemas::{Failure, FailureKind};

/// Bytes that a decoder may take for each pixel: four channels of 16 bits, and as much again for its own work.
const BYTES_PER_PIXEL_MAX: u64 = 16;
/// And beside that.
const DECODER_BYTES: u64 = 1 << 20;

/// The pixels of `file`, as they are looked at: turned as its EXIF says, on white where it is transparent; the first frame of
/// several. Source: transformers 5, `load_image` and `convert_to_rgb`.
pub fn decode(file: &[u8], image: &Image) -> Result<RgbImage, Failure> {
    let invalid = |what: &str| Failure::invalid(image.field.clone(), format!("`{}` {what}", image.field));
    // A decoder that panics ends this image only.
    catch_unwind(AssertUnwindSafe(|| read(file, image)))
        .map_err(|_| Failure::new(FailureKind::Internal, "the image decoder panicked"))?
        .map_err(|error| match error {
            Unreadable::Decoder(error) => invalid(&format!("cannot be decoded: {error}")),
            Unreadable::OtherSize(width, height) => invalid(&format!(
                "is {width} by {height} pixels, but its header said {} by {}",
                image.width, image.height
            )),
        })
}

enum Unreadable {
    Decoder(image::ImageError),
    OtherSize(u32, u32),
}

impl From<image::ImageError> for Unreadable {
    fn from(error: image::ImageError) -> Self {
        Self::Decoder(error)
    }
}

fn read(file: &[u8], image: &Image) -> Result<RgbImage, Unreadable> {
    let mut reader =
        ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(image::ImageError::IoError)?;
    let pixels = u64::from(image.width) * u64::from(image.height);
    let mut limits = Limits::default();
    limits.max_alloc = Some(pixels.saturating_mul(BYTES_PER_PIXEL_MAX) + DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let (width, height) = decoder.dimensions();
    // A quarter turn swaps the sides.
    if u64::from(width) * u64::from(height) != pixels {
        return Err(Unreadable::OtherSize(width, height));
    }
    let mut decoded = DynamicImage::from_decoder(decoder)?;
    decoded.apply_orientation(orientation);
    match (decoded.width(), decoded.height()) == (image.width, image.height) {
        true if decoded.color().has_alpha() => Ok(on_white(&decoded.into_rgba8())),
        true => Ok(decoded.into_rgb8()),
        false => Err(Unreadable::OtherSize(decoded.width(), decoded.height())),
    }
}

/// `image` over white, rounded as Pillow does it.
fn on_white(image: &RgbaImage) -> RgbImage {
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0;
        let over = |channel: u8| {
            let (channel, alpha) = (u32::from(channel), u32::from(alpha));
            ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        Rgb([red, green, blue].map(over))
    })
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;
    use schemas::request::BlobRef;

    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let picture = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
        picture.write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner()
    }

    fn image(width: u32, height: u32) -> Image {
        Image {
            file: BlobRef { hash: [0; 32], bytes: 0 },
            width,
            height,
            field: "messages[2].content[1]".into(),
        }
    }

    #[test]
    fn pixels_come_back() {
        let decoded = decode(&png(9, 5), &image(9, 5)).unwrap();
        assert_eq!(decoded.get_pixel(8, 4).0, [8, 4, 7]);
    }

    #[test]
    fn broken_files_fail_by_their_field() {
        let whole = png(64, 64);
        for (file, size) in [
            (&whole[..whole.len() / 2], (64, 64)),
            (&whole[..20], (64, 64)),
            (&whole, (32, 32)),
            (&whole, (32, 128)),
            (b"not an image", (1, 1)),
            (b"", (1, 1)),
        ] {
            let failure = decode(file, &image(size.0, size.1)).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
            assert_eq!(failure.param.as_deref(), Some("messages[2].content[1]"));
        }
    }

    #[test]
    fn flipped_bits_never_panic() {
        let whole = png(16, 16);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Err(failure) = decode(&flipped, &image(16, 16)) {
                assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
            }
        }
    }
}
