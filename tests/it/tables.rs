//! The analyst tables, on both databases.

mod look;
mod whole_runs;

/// Each promise as a test of both back ends.
macro_rules! on_both {
    ($($module:ident: $($promise:ident)*;)*) => {
        mod sqlite {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$module::$promise(crate::log_contract::fixture::Backend::sqlite()).await;
            })*)*
        }
        mod postgres {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$module::$promise(crate::log_contract::fixture::Backend::postgres().await).await;
            })*)*
        }
    };
}

on_both! {
    whole_runs:
        the_tables_of_a_shuffled_run_are_what_happened;
}
