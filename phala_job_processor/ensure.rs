//! The guard that every rule is written with.

/// Returns `Err($error)` from the calling function unless `$condition` holds.
macro_rules! ensure {
    ($condition:expr, $error:expr $(,)?) => {
        if !$condition {
            return Err($error);
        }
    };
}

pub(crate) use ensure;
