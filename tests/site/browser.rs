//! A real browser without a window, driven by its debugging protocol over two pipes.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Process, until};

/// A page in a browser of its own.
#[derive(Debug)]
pub(crate) struct Browser {
    requests: File,
    answers: Receiver<Value>,
    session: Option<String>,
    number: u64,
    _process: Process,
    _directory: tempfile::TempDir,
}

impl Browser {
    /// Opens an address in a window of this width.
    pub(crate) fn open(url: &str, width: u32) -> Browser {
        let directory = tempfile::tempdir().unwrap();
        let [requests, answers] = ["requests", "answers"].map(|name| directory.path().join(name));
        let made = Command::new("mkfifo").arg(&requests).arg(&answers).status().unwrap();
        assert!(made.success());
        let mut command = Command::new("sh");
        // The browser reads requests from descriptor 3 and writes answers to 4.
        let run = "exec chromium --headless --no-sandbox --disable-gpu --no-first-run --user-data-dir=\"$3\" \
                   --remote-debugging-pipe about:blank 3<\"$1\" 4>\"$2\"";
        command.args(["-c", run, "sh"]).arg(&requests).arg(&answers).arg(directory.path().join("profile"));
        let process = Process::start(&mut command, &directory.path().join("log"));
        let requests = OpenOptions::new().write(true).open(requests).unwrap();
        let reader = BufReader::new(File::open(answers).unwrap());
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for message in reader.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Browser {
            requests,
            answers: receiver,
            session: None,
            number: 0,
            _process: process,
            _directory: directory,
        };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.ask("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        let size = json!({"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 700});
        browser.ask("Emulation.setDeviceMetricsOverride", size);
        browser.ask("Page.navigate", json!({"url": url}));
        browser
    }

    /// Asks the browser, and gives what it answers.
    pub(crate) fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut request = json!({"id": self.number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.requests.write_all(format!("{request}\0").as_bytes()).unwrap();
        loop {
            let message =
                self.answers.recv_timeout(PATIENCE).expect("the browser answers (is Chromium installed?)");
            if message["id"] == self.number {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }

    /// The value of an expression in the page, or why there is none.
    fn evaluate(&mut self, expression: &str) -> Result<Value, Value> {
        let parameters = json!({"expression": expression, "returnByValue": true});
        let answer = self.ask("Runtime.evaluate", parameters);
        match &answer["exceptionDetails"] {
            Value::Null => Ok(answer["result"]["value"].clone()),
            why => Err(why.clone()),
        }
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        self.evaluate(expression).unwrap_or_else(|why| panic!("{expression}: {why}"))
    }

    /// Waits until an expression is true in the page. Before the page is there, none has a value.
    pub(crate) fn until(&mut self, expression: &str) {
        until(&format!("the page comes to {expression}"), || {
            (self.evaluate(expression) == Ok(Value::Bool(true))).then_some(())
        });
    }

    /// Presses a key and lets it go.
    pub(crate) fn press(&mut self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.ask("Input.dispatchKeyEvent", event);
        }
    }

    /// The page in `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// What a screen reader is told: role and name of each node.
    pub(crate) fn spoken(&mut self) -> Vec<(String, String)> {
        let tree = self.ask("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true);
        let word = |node: &Value, part: &str| node[part]["value"].as_str().unwrap_or_default().to_owned();
        nodes.map(|node| (word(node, "role"), word(node, "name"))).collect()
    }

    /// Saves a picture, as base64 of a PNG, where `TALLYD_TEST_PICTURES` names a directory.
    pub(crate) fn picture(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("TALLYD_TEST_PICTURES") else { return };
        let taken = self.ask("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        let file = std::path::Path::new(&directory).join(format!("{name}.png.base64"));
        std::fs::write(file, taken["data"].as_str().unwrap()).unwrap();
    }
}
