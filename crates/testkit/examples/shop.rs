//! The shop of the stories for `./gt bench conformance`: its documents and settings in a folder, and the model server behind it.
//!
//! `shop answers FOLDER` writes both, prints a line and is the model server until its standard input closes; `shop tuning FOLDER PORT` writes both.
//! It says the base model that a training may name.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a measuring tool stops at what it does not expect")]

use groundtone_testkit::{RawServer, SHOP_BASE, answering_shop, shop_model, shop_webhook, small_shop, tuning_shop};
use std::path::Path;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let write = |folder: &str, settings: String| {
        small_shop(Path::new(folder));
        std::fs::write(Path::new(folder).join("groundtone.toml"), settings).unwrap();
        println!("{SHOP_BASE}");
    };
    match words.as_slice() {
        ["answers", folder] => {
            let model = RawServer::start(shop_model);
            write(folder, answering_shop(&model.base_url));
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        }
        ["tuning", folder, port] => write(folder, tuning_shop(&shop_webhook(port.parse().unwrap()))),
        _ => panic!("shop answers FOLDER | shop tuning FOLDER PORT"),
    }
}
