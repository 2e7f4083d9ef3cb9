//! A headless Chromium that a test drives by the DevTools protocol, over pipes: no port, no driver.

use super::processes::{Place, Program};
use base64::Engine;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Command;

pub struct Browser {
    to: File,
    from: BufReader<File>,
    number: u64,
    session: Option<String>,
    _program: Program,
}

impl Drop for Browser {
    /// Asks it to end, and waits until it has: it writes to its profile until then.
    fn drop(&mut self) {
        // One that has ended by itself reads no more.
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.from.read_to_end(&mut vec![]);
    }
}

/// What a screenshot shows.
pub struct Picture {
    width: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// The colours of the pixels, row by row.
    pub fn colours(&self) -> impl Iterator<Item = [u8; 3]> {
        self.pixels.chunks_exact(3).map(|rgb| [rgb[0], rgb[1], rgb[2]])
    }

    pub fn width(&self) -> usize {
        self.width
    }
}

impl Browser {
    /// A page, written to the place, in a window of 1,200 by 900.
    pub fn open(place: &Place, html: &str) -> Browser {
        let page = place.write("page.html", html);
        let pipes = [place.0.join("to"), place.0.join("from")];
        let made = Command::new("mkfifo").args(&pipes).status().expect("mkfifo");
        assert!(made.success());
        // The browser reads commands at descriptor 3 and answers at 4.
        let program = Program::start(
            Command::new("sh")
                .args(["-c", "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars \
                        --window-size=1200,900 --remote-debugging-pipe --user-data-dir=\"$3\" about:blank 3<\"$1\" 4>\"$2\"", "sh"])
                .args(&pipes)
                .arg(place.0.join("profile")),
            &place.0.join("chromium.log"),
        );
        let to = OpenOptions::new().write(true).open(&pipes[0]).expect("a pipe");
        let from = BufReader::new(File::open(&pipes[1]).expect("a pipe"));
        let mut browser = Browser {
            to,
            from,
            number: 0,
            session: None,
            _program: program,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.call(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        );
        browser.session = Some(attached["sessionId"].as_str().expect("a session").to_string());
        browser.call("Page.enable", json!({}));
        let address = format!("file://{}", page.display());
        browser.call("Page.navigate", json!({ "url": address }));
        browser.wait_for("Page.loadEventFired");
        browser
    }

    fn read(&mut self) -> Value {
        let mut message = vec![];
        self.from
            .read_until(0, &mut message)
            .expect("the browser answers");
        assert_eq!(message.pop(), Some(0), "the browser has ended");
        serde_json::from_slice(&message).expect("JSON")
    }

    fn wait_for(&mut self, event: &str) {
        while self.read()["method"] != event {}
    }

    /// A method of the protocol, and its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text).expect("the browser reads");
        loop {
            let answer = self.read();
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Presses a key that writes nothing, and lets it go.
    pub fn press(&mut self, key: &str, number: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let parameters =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number });
            self.call("Input.dispatchKeyEvent", parameters);
        }
    }

    /// How the page looks to who prefers this colour scheme: as a file, and its pixels.
    pub fn screenshot(&mut self, scheme: &str) -> (Vec<u8>, Picture) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features);
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let file = decoded(&shot["data"]);
        let mut reader = png::Decoder::new(std::io::Cursor::new(&file))
            .read_info()
            .expect("a picture");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("pixels");
        assert_eq!(
            (info.color_type, info.bit_depth),
            (png::ColorType::Rgb, png::BitDepth::Eight)
        );
        let width = info.width as usize;
        (file, Picture { width, pixels })
    }

    /// The page as a printer gets it.
    pub fn pdf(&mut self) -> Vec<u8> {
        let printed = self.call("Page.printToPDF", json!({ "printBackground": false }));
        decoded(&printed["data"])
    }
}

fn decoded(data: &Value) -> Vec<u8> {
    let text = data.as_str().expect("base64");
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .expect("base64")
}
