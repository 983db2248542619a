//! The people of the simulated enterprise, its guests and those who dial in. Pure: a person is computed from a number,
//! so that a company of any size takes no memory.

/// 128 random bits that the platform prints as 32 lower-case hex digits.
pub(super) type Uuid = u128;

const FAMILY: [&str; 10] = ["王", "李", "张", "刘", "陈", "杨", "黄", "赵", "吴", "欧阳"];
const GIVEN: [&str; 10] = ["小明", "伟", "芳", "秀英", "建国", "子涵", "丽娜", "志强", "𠮷", "婷婷"];
const FIRST: [&str; 10] = ["Ana", "Seán", "Zoë", "Jürgen", "Łukasz", "Amélie", "Mary-Jane", "Øystein", "Ngọc", "Chidi"];
const LAST: [&str; 8] = ["O'Neil", "Müller", "de la Cruz", "Smith & Sons", "Kowalska", "Nguyễn", "<Lab>", "Sørensen"];
const ARABIC: [&str; 6] = ["مريم الحسن", "أحمد بن علي", "فاطمة الزهراء", "يوسف خليل", "ليلى منصور", "عمر حدّاد"];
const EMOJI: [&str; 6] = ["🚀", "👩‍💻", "🐼", "☕️", "🇨🇳", "👨‍👩‍👧‍👦"];
const NICK: [&str; 6] = ["the Boss", "Q/A", "C:\\ops", "5\" screen", "tab\there", "R&D"];

const DEPARTMENTS: [&str; 5] = ["R&D", "研发部", "Vertrieb \"Süd\"", "财务部", "Operations / Lagos"];

/// Kinds of client of people with an account. Only the first is in the manual; the others are plausible.
pub(super) const DEVICES: [&str; 5] =
    ["WeLink-desktop", "WeLink-mobile", "HuaweiCloudMeeting-desktop", "HuaweiCloudMeeting-mobile", "IdeaHub"];

/// Which kind of person, and which one of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Has an account of the enterprise.
    Employee(u32),
    /// Has neither account nor user UUID, but a SIP number.
    Guest(u64),
    /// Comes by browser and has nothing but a name.
    Visitor(u64),
    /// Dials in by telephone.
    Telephone(u64),
}

/// What the platform says of a person. Empty texts are sent as empty strings: what the platform really sends for people
/// without an account is not documented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub who: Who,
    pub user_uuid: Option<Uuid>,
    pub account: String,
    pub display_name: String,
    pub call_number: String,
}

impl Who {
    /// This person, in the company that `company` seeds.
    pub(super) fn person(self, company: u64) -> Person {
        match self {
            Self::Employee(number) => {
                let dice = mix(company ^ u64::from(number));
                let high = mix(dice ^ 1);
                Person {
                    who: self,
                    user_uuid: Some((u128::from(high) << 64) | u128::from(dice)),
                    account: format!("staff.{number:05}@meetings.example-corp.com"),
                    display_name: format!("{} ({})", name(dice), pick(&DEPARTMENTS, dice, 32)),
                    call_number: format!("+99111{:010}", u64::from(number) + 2_000_000),
                }
            }
            Self::Guest(number) => Person {
                who: self,
                user_uuid: None,
                account: String::new(),
                display_name: format!("{} (guest)", name(mix(company ^ number))),
                call_number: format!("+99222{:010}", number % 10_000_000_000),
            },
            Self::Visitor(number) => Person {
                who: self,
                user_uuid: None,
                account: String::new(),
                display_name: name(mix(company ^ number)),
                call_number: String::new(),
            },
            Self::Telephone(number) => {
                let digits = format!("{:08}", number % 100_000_000);
                Person {
                    who: self,
                    user_uuid: None,
                    account: String::new(),
                    display_name: format!("139****{}", &digits[4..]),
                    call_number: format!("+86139{digits}"),
                }
            }
        }
    }

    /// The client that this person uses as their `device`-th.
    pub(super) fn user_agent(self, device: usize) -> &'static str {
        match self {
            Self::Employee(number) => DEVICES[(usize::try_from(number).unwrap_or(0) + device) % DEVICES.len()],
            Self::Guest(_) => DEVICES[2 + device % 2],
            Self::Visitor(_) => "Web",
            Self::Telephone(_) => "PSTN",
        }
    }
}

/// Spreads the bits of `x` (the finaliser of SplitMix64).
pub(super) const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The element of `list` that the bits of `dice` from `shift` on choose.
fn pick(list: &[&'static str], dice: u64, shift: u32) -> &'static str {
    let at = (dice >> shift) % u64::try_from(list.len()).unwrap_or(1).max(1);
    usize::try_from(at).ok().and_then(|at| list.get(at).copied()).unwrap_or_default()
}

/// A name that `dice` chooses: mostly Chinese and Latin, some Arabic, emoji, quotes and backslashes.
fn name(dice: u64) -> String {
    let pick = |list: &[&'static str], shift: u32| pick(list, dice, shift);
    let latin = || format!("{} {}", pick(&FIRST, 8), pick(&LAST, 16));
    match dice % 10 {
        0..4 => format!("{}{}", pick(&FAMILY, 8), pick(&GIVEN, 16)),
        4..7 => latin(),
        7 => pick(&ARABIC, 8).to_owned(),
        8 => format!("{} \"{}\"", latin(), pick(&NICK, 24)),
        _ => format!("{}{} {}", pick(&FAMILY, 8), pick(&GIVEN, 16), pick(&EMOJI, 24)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_company_has_names_of_many_scripts_and_everybody_has_an_account_of_their_own() {
        let people: Vec<_> = (0..500).map(|number| Who::Employee(number).person(1)).collect();
        for sample in ["王", "مريم الحسن", "🚀", "O'Neil", "\\", "\"", "\t"] {
            assert!(people.iter().any(|person| person.display_name.contains(sample)), "{sample:?}");
        }
        let accounts: std::collections::HashSet<_> = people.iter().map(|person| &person.account).collect();
        let uuids: std::collections::HashSet<_> = people.iter().map(|person| person.user_uuid).collect();
        assert_eq!((accounts.len(), uuids.len()), (500, 500));
    }

    #[test]
    fn people_without_an_account_have_no_user_uuid_either() {
        for who in [Who::Guest(5), Who::Visitor(5), Who::Telephone(5)] {
            let person = who.person(1);
            assert_eq!((person.user_uuid, person.account.as_str()), (None, ""));
        }
    }
}
