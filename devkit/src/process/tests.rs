use super::*;

fn program(folder: &Path, script: &str) -> Program {
    Program {
        name: "a script".to_owned(),
        executable: "sh".into(),
        environment: Vec::new(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        folder: folder.to_owned(),
        log: folder.join("log"),
        leftover: None,
    }
}

fn alive(pid: u32) -> bool {
    rustix::process::test_kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()).is_ok()
}

#[tokio::test]
async fn a_program_that_ends_while_starting_shows_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut process =
        Process::start(program(dir.path(), "echo the disk is full >&2; exit 3")).unwrap();
    let error = process
        .until_ready(Duration::from_secs(20), async || bail!("not yet"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("exit code 3") && error.contains("the disk is full"),
        "{error}"
    );
}

#[tokio::test]
async fn a_program_can_be_stopped_in_order_and_killed() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let log = dir.path().join("log");
    let ready = async || match fs::read_to_string(&log)?.contains("up") {
        true => Ok(()),
        false => bail!("not up"),
    };

    let mut process = Process::start(program(dir.path(), script)).unwrap();
    process
        .until_ready(Duration::from_secs(20), ready)
        .await
        .unwrap();
    let pid = process.pid();
    process.stop(Duration::from_secs(20)).await.unwrap();
    assert!(!alive(pid));
    assert!(fs::read_to_string(&log).unwrap().contains("bye"));

    let process = Process::start(program(dir.path(), "exec sleep 600")).unwrap();
    let pid = process.pid();
    assert!(alive(pid));
    process.kill().await.unwrap();
    assert!(!alive(pid));
}

#[test]
fn a_dropped_program_is_gone_and_its_folder_is_left_to_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = program(dir.path(), "exec sleep 600");
    program.leftover = Some(dir.path().join("data"));
    fs::create_dir(dir.path().join("data")).unwrap();
    let process = Process::start(program).unwrap();
    let pid = process.pid();
    drop(process);
    assert!(!alive(pid));
    assert!(dir.path().join("data").exists());
}
