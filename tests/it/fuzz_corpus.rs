//! What fuzzing kept, replayed: bytes that reach every part of the code, and those that once showed an error.

#[path = "../fuzz/mod.rs"]
mod fuzz;

use std::{fs, path::Path};

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for file in fs::read_dir(&corpus).expect("a corpus") {
        let path = file.expect("a readable folder").path();
        eprintln!("{}", path.display());
        run(&fs::read(&path).expect("a readable file"));
        replayed += 1;
    }
    assert!(replayed > 5, "{replayed} files in {}", corpus.display());
}

#[test]
fn the_corpus_of_envelopes_is_verified_as_promised() {
    replay("verify", fuzz::verify::run);
}

#[test]
fn no_settings_file_of_the_corpus_gives_a_secret_away() {
    replay("settings", fuzz::settings::run);
}

#[test]
fn the_corpus_of_events_becomes_cloudevents() {
    replay("cloudevent", fuzz::cloudevent::run);
}
