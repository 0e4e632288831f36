//! What an image file says of itself: enough to refuse it cheaply. vision-encode finds out whether the rest is true.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{ImageDecoder, ImageFormat, ImageReader, Limits};

use super::Fault;

const FORMATS: [ImageFormat; 4] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif];
/// What reading a header may allocate: colour profiles and EXIF, but no pixels.
const HEADER_BYTES_MAX: u64 = 4 << 20;

/// Width and height of `file` as it is looked at, of at most `pixels_max` in all. No pixel is decoded.
pub fn read(file: &[u8], pixels_max: u64) -> Result<(u32, u32), Fault> {
    // A decoder that panics costs this request only.
    let (width, height, orientation) = catch_unwind(AssertUnwindSafe(|| size(file)))
        .unwrap_or_else(|_| Err("the decoder panicked".to_owned()))
        .map_err(|reason| Fault::Invalid(format!("is not a readable PNG, JPEG, WebP or GIF: {reason}")))?;
    if width == 0 || height == 0 {
        return Err(Fault::Invalid(format!("is {width} by {height} pixels")));
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > pixels_max {
        return Err(Fault::TooLarge(format!(
            "has {width} by {height} pixels, the limit is {pixels_max} in all"
        )));
    }
    let on_its_side = matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    Ok(if on_its_side { (height, width) } else { (width, height) })
}

fn size(file: &[u8]) -> Result<(u32, u32, Orientation), String> {
    let text = |error: image::ImageError| error.to_string();
    let mut reader =
        ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|error| error.to_string())?;
    match reader.format() {
        Some(format) if FORMATS.contains(&format) => {}
        _ => return Err("its first bytes are those of another format".to_owned()),
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(HEADER_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(text)?;
    let (width, height) = decoder.dimensions();
    Ok((width, height, decoder.orientation().map_err(text)?))
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    fn file(format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        RgbImage::new(30, 20).write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    /// A PNG that claims `side` by `side` pixels and holds none.
    fn bomb(side: u32) -> Vec<u8> {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend(side.to_be_bytes());
        png.extend(side.to_be_bytes());
        png.extend([8, 2, 0, 0, 0]);
        let crc = png[12..].iter().fold(u32::MAX, |crc, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        png.extend((!crc).to_be_bytes());
        png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
        png
    }

    #[test]
    fn the_size_is_read_without_the_pixels() {
        for format in FORMATS {
            let file = file(format);
            assert_eq!(read(&file, 600), Ok((30, 20)), "{format:?}");
            assert!(matches!(read(&file, 599), Err(Fault::TooLarge(_))), "{format:?}");
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused_by_its_header() {
        assert!(
            matches!(read(&bomb(60_000), 32_000_000), Err(Fault::TooLarge(text)) if text.contains("60000"))
        );
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let svg: &[u8] = b"<svg xmlns='http://www.w3.org/2000/svg'/>";
        let bitmap = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0";
        for file in [b"", svg, bitmap, &file(ImageFormat::Png)[..12], &file(ImageFormat::Jpeg)[..30]] {
            assert!(matches!(read(file, 1000), Err(Fault::Invalid(_))));
        }
    }
}
