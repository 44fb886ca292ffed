//! The page of the gate in a browser. `make test-browser` installs Chromium and runs this flow.

use std::fs;
use std::path::Path;
use std::process::Output;

use tokio::process::Command;

use super::shop::Shop;
use crate::fixture::TestEnv;

/// What Chromium does with a page, in a profile of its own.
async fn chromium(profile: &Path, arguments: &[&str], url: &str) -> Output {
    let profile = format!("--user-data-dir={}", profile.display());
    let started = Command::new("chromium")
        .args(["--headless", "--disable-gpu", "--disable-dev-shm-usage"])
        // It runs as root.
        .arg("--no-sandbox")
        .args(["--enable-logging=stderr", "--window-size=1280,800"])
        .arg(profile)
        .args(arguments)
        .arg(url)
        .output();
    let output = started.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
#[ignore = "make test-browser installs Chromium"]
fn page_shows_what_is_for_sale_in_chromium() {
    TestEnv::run(async |env| {
        let shop = Shop::open(env, &[]).await;
        shop.sell().await;
        let url = format!("http://{}/", shop.gate);
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser");
        let profile = directory.join("profile");
        fs::create_dir_all(&profile).unwrap();

        let shown = chromium(&profile, &["--dump-dom"], &url).await;
        let dom = String::from_utf8(shown.stdout).unwrap();
        for text in ["chat", "0.002 USDC", "/services/chat"] {
            assert!(dom.contains(text), "{text} is missing: {dom}");
        }
        let log = String::from_utf8_lossy(&shown.stderr);
        assert!(!log.contains("Content Security Policy"), "{log}");

        let draw = async |name: &str, url: &str| {
            let file = directory.join(name);
            let argument = format!("--screenshot={}", file.display());
            chromium(&profile, &[&argument], url).await;
            fs::read(file).unwrap()
        };
        let page = draw("page.png", &url).await;
        let blank = draw("blank.png", "about:blank").await;
        assert!(page.starts_with(b"\x89PNG"));
        let (page, blank) = (page.len(), blank.len());
        assert!(
            page > 2 * blank,
            "{page} bytes, and {blank} of an empty page"
        );
    });
}
