//! The enterprise's directory (manual, section 11.2.4).

use serde_json::{Value, json};

use super::archive::Archive;
use super::refusal::Refusal;
use super::request::Query;
use super::tokens::Caller;
use crate::people::mix;

/// The most users in one call.
const MAX_USERS: usize = 200;

const DEPARTMENTS: [&str; 4] = ["Sales", "研发部", "财务部", "Operations"];

/// 11.2.4: those who are asked for, in that order; a user that does not exist comes with `statusCode` 2. Who may ask is not
/// documented: here whoever is no administrator is not permitted to see anybody.
pub(super) fn users(archive: &Archive, caller: &Caller, query: &Query, body: &[u8]) -> Result<Value, Refusal> {
    if query.required("idType")? != "USER_ID" {
        return Err(Refusal::BAD_PARAMETER);
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::BAD_JSON)?;
    let asked = body.as_array().filter(|asked| (1..=MAX_USERS).contains(&asked.len())).ok_or(Refusal::BAD_PARAMETER)?;
    let user = |asked: &Value| {
        let id = asked["id"].as_str().filter(|id| !id.is_empty()).ok_or(Refusal::BAD_PARAMETER)?;
        if archive.left.contains(id) {
            return Ok(json!({ "id": id, "statusCode": 2 }));
        }
        if !caller.administrator {
            return Ok(json!({ "id": id, "statusCode": 3 }));
        }
        let dice = mix(id.bytes().fold(0, |all, byte| mix(all ^ u64::from(byte))));
        let department = DEPARTMENTS[usize::try_from(dice % 4).unwrap_or(0)];
        Ok(json!({
            "id": id, "statusCode": 0, "name": "Demo User", "deptName": department, "title": "Engineer",
            "phone": "+8613800000000", "email": "demo@example.com", "updateTime": 1_735_600_000_000_i64,
            "type": "NORMAL_USER", "deptCodes": [department], "hidePhone": false,
        }))
    };
    asked.iter().map(user).collect::<Result<Vec<_>, _>>().map(Value::Array)
}
