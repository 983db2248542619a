//! The platform's error answers: a status, a code of a family, a text (manual, chapter 22; the form of the body is given in the
//! tables of status 400 of the newer control calls).

/// An error answer: `{"error_code":"…","error_msg":"…"}` with a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// `error_code`.
    pub code: &'static str,
    /// `error_msg`: for codes of the family `MMC` the symbol.
    pub message: &'static str,
}

impl Refusal {
    /// Any error answer.
    #[must_use]
    pub const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message }
    }

    /// The server fault that may pass (chapter 22, status 500).
    pub const BUSY: Self = Self::new(500, "USG.000000001", "The server is busy. Please try again later.");
    /// The system is being upgraded (chapter 22, status 503).
    pub const UPGRADING: Self = Self::new(503, "USG.000000008", "The system is being upgraded.");
    /// An expired session, which comes as a 400 (chapter 22, status 400).
    pub const SESSION_TIMED_OUT: Self = Self::new(400, "MMC.118000001", "USER_TOKEN_AUTH_FAILED");
    /// A token that is not valid (chapter 22, status 401).
    pub const TOKEN_INVALID: Self = Self::new(401, "MMC.118000000", "USER_AUTHENTICATION_FAILED");

    pub(super) const TOKEN_MISSING: Self = Self::new(400, "MMC.111070111", "REQUEST_TOKEN_IS_NULL");
    pub(super) const APP_AUTH_FAILED: Self = Self::new(401, "USG.206010025", "App auth failed.");
    pub(super) const APP_UNKNOWN: Self = Self::new(400, "USG.201200003", "The application does not exist.");
    pub(super) const BAD_LOGIN: Self = Self::new(400, "USG.000000003", "The server is busy. Please try again later.");
    pub(super) const ENTERPRISE_UNKNOWN: Self = Self::new(400, "USG.201020000", "The enterprise does not exist.");
    pub(super) const NOT_PERMITTED: Self = Self::new(403, "MMC.111070002", "CONF_INSUFFICIENT_PERMISSIONS");
    pub(super) const NOT_YOUR_MEETING: Self = Self::new(403, "MMC.111070010", "CONF_ROLE_AUTHENTICATION_FAILED");
    pub(super) const BAD_REQUEST: Self = Self::new(400, "MMC.111070001", "CONF_BAD_REQUEST");
    pub(super) const BAD_PARAMETER: Self = Self::new(400, "MMC.111071061", "PARAMETER_VERIFIED_FAIL");
    pub(super) const BAD_JSON: Self = Self::new(400, "MMC.111071062", "JSON_CONVERSION_FAILED");
    pub(super) const ENABLE_FAILED: Self = Self::new(400, "MMC.111071121", "WEBHOOK_CONFIG_ENABLE_FAILED");
    pub(super) const SUBSCRIPTION_LOCKED: Self = Self::new(423, "MMC.111071120", "WEBHOOK_CONFIG_IS_LOCKED");
    pub(super) const NO_MEETING_THEN: Self = Self::new(400, "MMC.111071069", "CONF_NOCONF_IN_SELECTED_TIME");
    pub(super) const NO_SUCH_MEETING: Self = Self::new(400, "MMC.111070005", "CONF_DATA_NOT_FOUND");
    pub(super) const ALREADY_OVER: Self = Self::new(400, "MMC.111071072", "CONF_CLOSED_RECENTLY");
    pub(super) const NOT_STARTED: Self = Self::new(400, "MMC.111072005", "CONF_NOT_STARTED");
    pub(super) const NO_RECORDING: Self = Self::new(500, "MMC.111071118", "RECORD_INFO_NOT_EXIST");
    pub(super) const NOT_WHITE_LISTED: Self = Self::new(500, "MMC.111071117", "QUERY_RECORD_DOWNLOAD_NOT_IN_WHITELIST");
    /// Chapter 7 is for enterprises on the flagship edition (chapter 22, status 403).
    pub const NOT_FLAGSHIP: Self =
        Self::new(403, "MBI.104030001", "The current enterprise is not a flagship edition enterprise.");
    pub(super) const NOT_ADMINISTRATOR: Self = Self::new(400, "MBI.000000004", "Illegal request.");
    pub(super) const PARAMETER_MISSING: Self = Self::new(400, "MBI.104000001", "A parameter is missing.");
    pub(super) const BAD_MEETING_TYPE: Self = Self::new(400, "MBI.104000004", "The conference type is invalid.");
    pub(super) const NOT_ONLINE: Self = Self::new(400, "MBI.104000007", "The online conference does not exist.");
    pub(super) const NOT_IN_HISTORY: Self = Self::new(400, "MBI.104000008", "The history conference does not exist.");
    pub(super) const BAD_TIME_UNIT: Self = Self::new(400, "MBI.104000011", "The time unit is invalid.");
    pub(super) const BAD_CATEGORY: Self = Self::new(400, "MBI.104000012", "The category is invalid.");
    pub(super) const BAD_TIME: Self = Self::new(400, "MBI.104000013", "The start time or end time is invalid.");
    /// The gateway's own (chapter 22 refers to its documentation for these).
    pub(super) const NO_SUCH_API: Self =
        Self::new(404, "APIG.0101", "The API does not exist or has not been published in the environment");

    /// The body.
    pub(super) fn body(&self) -> serde_json::Value {
        serde_json::json!({ "error_code": self.code, "error_msg": self.message })
    }
}
