use super::*;

fn images() -> Images {
    let table = [("shop/web", "/srv/web"), ("python:3.12", "/usr/bin/python3")];
    let table = table.into_iter().map(|(name, path)| (name.to_owned(), PathBuf::from(path))).collect();
    Images::new(table, PathBuf::from("/opt/bin/meltemi-debug"))
}

#[test]
fn an_image_names_a_program() {
    let check = |image: &str, command: &str, arguments: &str, expected: &str| {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let found = match images().invocation(image, &words(command), &words(arguments)) {
            Ok(Invocation { program, arguments }) => format!("{} {}", program.display(), arguments.join(" ")),
            Err(message) => message,
        };
        assert_eq!(found.trim_end(), expected, "{image} [{command}] [{arguments}]");
    };
    check("meltemi:latest", "", "echo", "/opt/bin/meltemi-debug echo");
    check("registry:5000/x/meltemi:1@sha256:0", "", "echo -v", "/opt/bin/meltemi-debug echo -v");
    check("meltemi", "meltemi echo", "--http 80", "/opt/bin/meltemi-debug echo --http 80");
    check("meltemi", "/usr/local/bin/meltemi", "echo", "/opt/bin/meltemi-debug echo");
    check("meltemi", "sleep", "1", "sleep 1");
    check("shop/web:v2", "", "", "/srv/web");
    check("python:3.12", "", "-m http.server", "/usr/bin/python3 -m http.server");
    check("other:1", "/bin/true", "", "/bin/true");
    let unknown = "image `team/other:1` is unknown on this machine: give the program that stands for it with \
                   `--image team/other=PATH`, or a `command`";
    check("team/other:1", "", "", unknown);
}
