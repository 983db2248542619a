//! Checks the settings and the files that they name.

use super::report::Report;
use crate::app;
use crate::config::{Settings, TlsFiles};
use crate::http::server::Trouble;
use crate::words::counted;
use convoke_core::time::Clock;

/// Checks the settings and the files that they name.
pub(super) fn files(report: &mut Report, settings: &Settings) {
    match settings.check_serve() {
        Ok(()) => {
            report.ok("settings", counted(settings.subscribers.len() as u64, "subscriber", "subscribers"));
        }
        Err(error) => report.fail("settings", error),
    }
    if let Some(files) = &settings.listen.tls {
        certificate(report, settings, files);
    }
    for source in &settings.subscriber_sources {
        for file in &source.key_files {
            // Loading the settings has read them.
            report.ok("key file", format!("{}, of subscriber {}", file.display(), source.app_id));
        }
    }
    for problem in settings.secret_warnings() {
        report.warn("secret", problem);
    }
}

fn certificate(report: &mut Report, settings: &Settings, files: &TlsFiles) {
    let what = "TLS";
    match app::certificates(settings, files) {
        Err(error) => report.fail(what, error),
        Ok(certificates) => match certificates.trouble(Clock::System.now()) {
            Some(trouble @ Trouble::Soon(_)) => report.warn(what, format!("the certificate {trouble}")),
            Some(trouble @ Trouble::Now(_)) => report.fail(what, format!("the certificate {trouble}")),
            None => report.ok(what, format!("{}, with its key", files.cert.display())),
        },
    }
}
