//! Libraries that are preloaded into a server, and do what a shared file tells them.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Compiles a library of `src/parts`. What a shell does before it starts the server, and the file that the library looks at,
/// which is all zero.
pub fn compile(name: &str) -> (String, File) {
    let folder = std::env::temp_dir().join(format!("fhir_bulk_{name}_{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let (library, control) = (folder.join(name).with_extension("so"), folder.join("control"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/parts").join(name).with_extension("c");
    let compiled =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(compiled.is_ok_and(|status| status.success()), "a C compiler is needed");
    fs::write(&control, [0; 4096]).expect("a file");
    fs::set_permissions(&control, fs::Permissions::from_mode(0o666)).expect("it is ours");
    let file = File::options().read(true).write(true).open(&control).expect("it is ours");
    (format!("export LD_PRELOAD='{}' FHIR_BULK_CONTROL='{}'", library.display(), control.display()), file)
}
