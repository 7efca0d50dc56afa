//! QR codes as PNG pictures in data URLs.

use base64::{Engine, engine::general_purpose::STANDARD};
use qrcodegen::{QrCode, QrCodeEcc};
use std::error::Error;

/// Pixels of a module's side.
const MODULE: usize = 6;
/// Modules of the white border that scanners need.
const BORDER: usize = 4;

/// `data:image/png;base64,…` of the text as a QR code, black on white.
pub(super) fn data_url(text: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium)?;
    let modules = code.size() as usize;
    let side = (modules + 2 * BORDER) * MODULE;
    let is_black = |x: usize, y: usize| {
        let module = |pixel: usize| (pixel / MODULE) as i32 - BORDER as i32;
        // Outside the code there is white.
        code.get_module(module(x), module(y))
    };
    let stride = side.div_ceil(8);
    // One bit a pixel, white, then the black ones cleared.
    let mut pixels = vec![0xff_u8; stride * side];
    for y in 0..side {
        for x in (0..side).filter(|x| is_black(*x, y)) {
            pixels[y * stride + x / 8] &= !(0x80 >> (x % 8));
        }
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side as u32, side as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_the_codes_modules() {
        let url = data_url("otpauth://totp/Hoody:ann?secret=JBSWY3DPEHPK3PXP&issuer=Hoody").unwrap();
        let bytes = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(frame.width, frame.height);
        let black = |module: usize| {
            let pixel = (BORDER + module) * MODULE;
            pixels[pixel * frame.line_size + pixel / 8] & (0x80 >> (pixel % 8)) == 0
        };
        // The finder pattern's diagonal: black ring, white ring, black centre of three, white, black.
        assert_eq!((0..8).map(black).collect::<Vec<_>>(), [true, false, true, true, true, false, true, false]);
    }
}
