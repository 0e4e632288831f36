//! Images inside the request: `data:image/png;base64,…`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::Fault;

/// The content of a data URL of at most `bytes_max`; none when `url` is of another kind.
pub fn decode(url: &str, bytes_max: u64) -> Option<Result<Bytes, Fault>> {
    let scheme = url.get(..5)?;
    scheme.eq_ignore_ascii_case("data:").then(|| content(&url[5..], bytes_max))
}

fn content(rest: &str, bytes_max: u64) -> Result<Bytes, Fault> {
    let invalid = |text: &str| Fault::Invalid(text.to_owned());
    let (kind, encoded) = rest.split_once(',').ok_or_else(|| invalid("is a data URL without a comma"))?;
    let mut parameters = kind.split(';');
    let media = parameters.next().unwrap_or_default();
    if !media.is_empty() && !media.to_ascii_lowercase().starts_with("image/") {
        return Err(Fault::Invalid(format!("is of type `{media:.100}`, must be an image")));
    }
    if !parameters.any(|parameter| parameter.eq_ignore_ascii_case("base64")) {
        return Err(invalid("is a data URL that is not in base64"));
    }
    // Before anything is allocated for it.
    if encoded.len() as u64 / 4 * 3 > bytes_max + 2 {
        return Err(Fault::TooLarge(format!(
            "has about {} bytes, the limit is {bytes_max}",
            encoded.len() / 4 * 3
        )));
    }
    match STANDARD.decode(encoded) {
        Ok(file) if file.len() as u64 > bytes_max => {
            Err(Fault::TooLarge(format!("has {} bytes, the limit is {bytes_max}", file.len())))
        }
        Ok(file) => Ok(file.into()),
        Err(error) => Err(Fault::Invalid(format!("is not base64: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_comes_back_within_the_limit() {
        assert_eq!(decode("data:image/png;base64,QUJD", 3), Some(Ok(Bytes::from_static(b"ABC"))));
        assert_eq!(decode("DATA:;base64,QUJD", 3), Some(Ok(Bytes::from_static(b"ABC"))));
        assert!(matches!(decode("data:image/png;base64,QUJD", 2), Some(Err(Fault::TooLarge(_)))));
        let long = format!("data:image/png;base64,{}", "A".repeat(4000));
        assert!(matches!(decode(&long, 100), Some(Err(Fault::TooLarge(_)))));
        assert_eq!(decode("https://example.org/a.png", 3), None);
        assert_eq!(decode("", 3), None);
    }

    #[test]
    fn what_is_no_image_in_base64_is_refused() {
        for url in ["data:", "data:image/png,abc", "data:text/html;base64,QUJD", "data:image/png;base64,Q*JD"]
        {
            assert!(matches!(decode(url, 100), Some(Err(Fault::Invalid(_)))), "{url}");
        }
    }
}
