//! Programs, and how they run.
//!
//! | room | contents |
//! |---|---|
//! | `tree`, `scope` | programs, and what they run on |
//! | `run` | the items that a program finds |
//! | `condition` | true, false or unknown |
//! | `reference` | what references refer to |
//! | `value`, `compare` | what views have besides: computed values and their order |

mod compare;
mod condition;
mod reference;
mod run;
mod scope;
mod tree;
mod value;

pub(crate) use reference::without_base;
pub use reference::{reference, reference_key};
pub use run::Sink;
pub use scope::{Scope, Within};
pub use tree::{
    Column, Comparison, Condition, Constant, ConstantValue, Literal, Missing, OfType, Operation, Program, Value,
};
