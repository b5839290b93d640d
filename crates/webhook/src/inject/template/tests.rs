use serde_json::json;

use super::*;
use crate::inject::shape::Shape;

fn render(text: &str, data: &Value) -> Result<String, String> {
    Template::parse("test", text, &Environment::default())?.render(data)
}

fn check(text: &str, expected: &str) {
    let data = plain(&json!({
        "Map": { "a": "1", "b": "2" },
        "List": ["x", "y"],
        "Values": { "global": { "nothing": null, "number": 15020 } },
    }));
    assert_eq!(render(text, &data).as_deref(), Ok(expected), "{text}");
}

#[test]
fn getters_are_read_as_fields() {
    let data = plain(&json!({ "ProxyConfig": {
        "InterceptionMode": "REDIRECT",
        "HoldApplicationUntilProxyStarts": true,
        "Tracing": { "TlsSettings": { "CaCertificates": "/etc/ca/root.pem" } },
        "DrainDuration": "90s",
    } }));
    for (text, expected) in [
        ("{{ .ProxyConfig.InterceptionMode.String }}", "REDIRECT"),
        ("{{ .ProxyConfig.HoldApplicationUntilProxyStarts.GetValue }}", "true"),
        ("{{ if .ProxyConfig.GetHoldApplicationUntilProxyStarts.Value }}held{{ end }}", "held"),
        ("{{ directory .ProxyConfig.GetTracing.GetTlsSettings.GetCaCertificates }}", "/etc/ca/"),
        ("{{ .ProxyConfig.GetGateway.GetName | default \"none\" }}", "none"),
        ("{{ formatDuration .ProxyConfig.DrainDuration }}", "1m30s"),
        ("{{ \".GetValue }}\" }}.GetValue `{{`", ".GetValue }}.GetValue `{{`"),
    ] {
        let expected = if text.ends_with("`{{`") { None } else { Some(expected) };
        assert_eq!(render(text, &data).ok().as_deref(), expected, "{text}");
    }
}

#[test]
fn getters_in_texts_stay() {
    let untouched = "{{ \"a.GetValue\" }}{{ `b.GetX` }} .GetValue {{ .Value }}";
    assert_eq!(getters::as_fields(untouched), untouched);
}

#[test]
fn a_comment_trims_on_the_side_that_it_says() {
    check("a\n  {{- /* }} */}}\n  b", "a\n  b");
    check("a\n  {{/* x */ -}}\n  b", "a\n  b");
    check("a {{- /* x */ -}} b", "ab");
    check("a {{/* x */}} b", "a  b");
}

#[test]
fn istios_functions() {
    check("{{ isset .Map `a` }} {{ isset .Map `z` }}", "true false");
    check("{{ excludeInboundPort 15020 `` }}|{{ excludeInboundPort `0` `1, 2` }}", "15020|1, 2");
    check("{{ excludeInboundPort 15020 `4, 5` }}|{{ excludeInboundPort 5 `4,5` }}", "4,5,15020|4,5");
    check(
        "{{ valueOrDefault .Values.global.nothing `d` }}{{ valueOrDefault `` `e` }}{{ valueOrDefault `v` `e` }}",
        "dev",
    );
    check("{{ toJSON .Map }} {{ toJsonMap (strdict `c` `3`) .Map }}", r#"{"a":"1","b":"2"} {"a":"1","b":"2","c":"3"}"#);
    check("{{ toJSON (omit .Map `a`) }}", r#"{"b":"2"}"#);
    check("{{ contains `/` `a/b` }} {{ toLower `ABC` }} {{ directory `/a/b` }}", "true abc /a/");
    check("a: {{ indent 2 (toYaml .Map) }}", "a: a: \"1\"\n  b: \"2\"\n  ");
    check(
        "{{ toJSON (omitNil (fromJSON `{\"a\":null,\"b\":{\"c\":null},\"d\":[null,1],\"e\":{}}`)) }}",
        r#"{"d":[1],"e":{}}"#,
    );
    check("{{ index .Map `z` }}|{{ index .Map `a` }}", "|1");
    check("{{ env `ABSENT` `default` }}", "default");
}

#[test]
fn the_environment_is_the_one_that_is_given() {
    let environment = Environment::new(BTreeMap::from([("VENDOR".to_owned(), "acme".to_owned())]));
    let template = Template::parse("t", "{{ env `VENDOR` `none` }}{{ env `HOME` `none` }}", &environment).unwrap();
    assert_eq!(template.render(&Value::Nil).as_deref(), Ok("acmenone"));
}

#[test]
fn networks_are_added_in_the_form_that_they_have() {
    for (existing, expected) in [
        ("", "default/istio-cni"),
        ("macvlan-conf-1", "macvlan-conf-1, default/istio-cni"),
        ("a, default/istio-cni", "a, default/istio-cni"),
        (r#"[{"name": "a"}]"#, r#"[{"name": "a"}, {"name": "istio-cni", "namespace": "default"}]"#),
        (r#"[{"name": "istio-cni", "namespace": "default"}]"#, r#"[{"name": "istio-cni", "namespace": "default"}]"#),
        (r#"[{"name": "istio-cni"},]"#, r#"[{"name": "istio-cni"},]"#),
    ] {
        let text = format!("{{{{ appendMultusNetwork `{existing}` `default/istio-cni` }}}}");
        assert_eq!(render(&text, &Value::Nil).as_deref(), Ok(expected), "{existing}");
    }
}

#[test]
fn attributes_for_traces_come_from_annotations_labels_and_the_image() {
    let attributes = |annotations: &str, labels: &str, image: &str| {
        let mesh = json!({ "extensionProviders": [{ "opentelemetry": { "serviceAttributeEnrichment": "OTEL_SEMANTIC_CONVENTIONS" } }] });
        let data = Value::from(BTreeMap::from([
            ("Mesh".to_owned(), structure(&mesh, &[], mesh.to_string())),
            (
                "Containers".to_owned(),
                Value::from(vec![view::of_shape(&json!({ "name": "app", "image": image }), Shape::container())]),
            ),
        ]));
        let text = format!(
            "{{{{ otelResourceAttributes .Mesh (fromJSON `{annotations}`) (fromJSON `{labels}`) `shop` .Containers }}}}"
        );
        render(&text, &data).unwrap()
    };
    let instance = "service.instance.id=shop.$(POD_NAME).app";
    assert_eq!(
        attributes("{}", "{}", "r:5000/app:1.2@sha256:ab"),
        format!("service.namespace=shop,service.version=1.2@sha256:ab,{instance}")
    );
    assert_eq!(attributes("{}", "{}", "r:5000/app"), format!("service.namespace=shop,{instance}"));
    assert_eq!(
        attributes(
            r#"{"resource.opentelemetry.io/service.namespace":"n"}"#,
            r#"{"app.kubernetes.io/version":"7"}"#,
            "app:1"
        ),
        format!("service.namespace=n,service.version=7,{instance}")
    );
}

#[test]
fn sprigs_functions() {
    check("{{ `` | default `x` | quote }} {{ 3 | default 4 }}", "\"x\" 3");
    check("{{ `-_abc.` | trunc 5 | trimAll `-_.` }}", "abc");
    check("{{ list `a` `b` | join `,` }} {{ append .List `z` | last }} {{ .List | has `x` }}", "a,b z true");
    check("{{ has `x` .List }} {{ (dict `k` `v`).k }} {{ hasKey .Map `a` }}", "true v true");
    check("{{ nindent 2 `a\nb` }}", "\n  a\n  b");
    check("{{ add 1 2 3 }} {{ sub 5 2 }} {{ div 7 2 }} {{ mod 7 2 }} {{ max 1 9 3 }}", "6 3 3 1 9");
    check("{{ range until 3 }}{{ . }}{{ end }}", "012");
    check("{{ ternary `yes` `no` true }} {{ coalesce `` `b` }} {{ empty .List }}", "yes b false");
    check("{{ `a-b` | replace `-` `_` | upper }} {{ b64enc `hi` }} {{ b64dec `aGk=` }}", "A_B aGk= hi");
    check(
        "{{ (merge (dict `a` `1`) (dict `a` `2` `b` `3`)).a }} {{ (mergeOverwrite (dict `a` `1`) (dict `a` `2`)).a }}",
        "1 2",
    );
    check("{{ dig `global` `number` 0 .Values }} {{ dig `x` `y` 7 .Values }}", "15020 7");
    check(
        "{{ hasPrefix `a` `ab` }} {{ `ab` | hasSuffix `b` }} {{ trimSuffix `b` `ab` }} {{ squote `q` }}",
        "true true a 'q'",
    );
    check(
        "{{ uniq (list `a` `a` `b`) | join `` }} {{ without (list 1 2) 1 | first }} {{ keys .Map | join `` }}",
        "ab 2 ab",
    );
}

#[test]
fn sprigs_functions_of_texts_lists_and_numbers() {
    for (text, expected) in [
        ("{{ abbrev 6 `abcdefgh` }} {{ abbrev 3 `abcdefgh` }} {{ abbrev 9 `abc` }}", "abc... abcdefgh abc"),
        ("{{ initials `First Try` }} {{ untitle `First Try` }}", "FT first try"),
        ("{{ plural `one` `many` 1 }} {{ plural `one` `many` 2 }}", "one many"),
        ("{{ (splitn `$` 2 `a$b$c`)._1 }}", "b$c"),
        ("{{ atoi `12` }} {{ biggest 1 3 2 }} {{ maxf 1 2.5 }} {{ minf 1.5 2 }}", "12 3 2.5 1.5"),
        ("{{ seq 3 }}|{{ seq 0 2 }}|{{ seq 5 -2 1 }}|{{ seq 2 0 }}", "1 2 3|0 1 2|5 3 1|2 1 0"),
        ("{{ all 1 `` }} {{ any 1 `` }} {{ deepEqual .List (list `x` `y`) }}", "false true true"),
        ("{{ range chunk 2 (list 1 2 3) }}{{ len . }};{{ end }}", "2;1;"),
        ("{{ pluck `a` .Map (dict `a` 5) | join `,` }} {{ slice (list 1 2 3) 1 2 | join `,` }}", "1,5 2"),
        ("{{ mustUniq (list 1 1 2) | join `,` }} {{ push (list 1) 2 | join `,` }}", "1,2 1,2"),
        ("{{ (mustFromJson `{\"a\": 1}`).a }} {{ typeIsLike `*string` `x` }}", "1 true"),
        (
            "{{ base `/a/b.c/` }} {{ dir `/a/b/c` }} {{ clean `a/../b//c/.` }} {{ ext `x/y.tar.gz` }}",
            "b.c /a/b b/c .gz",
        ),
        ("{{ isAbs `/a` }} {{ base `` }} {{ dir `a` }} {{ clean `/../a` }}", "true . . /a"),
        (
            "{{ with urlParse `http://u:p@h:80/p?q=1#f` }}{{ .userinfo }} {{ .hostname }} {{ urlJoin . }}{{ end }}",
            "u:p h http://u:p@h:80/p?q=1#f",
        ),
        ("{{ (urlParse `mailto:a@b`).opaque }} {{ (urlParse `https://[::1]:8/`).hostname }}", "a@b ::1"),
    ] {
        check(text, expected);
    }
    assert!(render("{{ slice (list 1) 2 3 }}", &Value::Nil).is_err());
    assert!(render("{{ mustFromJson `{` }}", &Value::Nil).is_err());
}

#[test]
fn sprigs_functions_of_letters_and_lines() {
    for (text, expected) in [
        ("{{ swapcase `This Is A.Test` }}", "tHIS iS a.tEST"),
        ("{{ snakecase `FirstName` }} {{ snakecase `HTTPServer` }}", "first_name http_server"),
        ("{{ snakecase `some-Mixed_case 12Value` }} {{ snakecase `aB1C2d` }}", "some_mixed_case_12_value a_b1_c_2d"),
        ("{{ kebabcase `HTTPServer2Go` }} {{ kebabcase `a_b c.d` }}", "http-server2-go a-b-c.d"),
        ("{{ camelcase `http_server` }} {{ camelcase `no-dashes here` }}", "HttpServer NoDashesHere"),
        ("{{ camelcase `_camel__case_` }} {{ camelcase `Already` }}", "_Camel_Case_ Already"),
        (
            "{{ title `hello wORLD of-things` }} {{ untitle `Hello World Of-Things` }}",
            "Hello WORLD Of-Things hello world of-Things",
        ),
        ("{{ wrap 10 `the quick brown fox jumps over it` }}", "the quick\nbrown fox\njumps over\nit"),
        ("{{ wrap 3 `abcdef gh` }}|{{ wrap 0 `ab c` }}", "abcdef\ngh|ab\nc"),
        ("{{ wrapWith 5 `|` `Hello World and all` }}", "Hello|World|and|all"),
        ("{{ wrapWith 5 `|` `HelloWorld again` }}", "Hello|World|again"),
        ("{{ abbrevboth 5 10 `1234 5678 9123` }} {{ abbrevboth 0 10 `1234 5678 9123` }}", "...5678... 1234 56..."),
        ("{{ abbrevboth 5 3 `1234` }}", "1234"),
        (
            "{{ b32enc `hello` }} {{ b32dec `NBSWY3DP` }} {{ b32enc `a` }} {{ b32dec `ME======` }}",
            "NBSWY3DP hello ME====== a",
        ),
        ("{{ b32dec `!` }}", "illegal base32 data at input byte 0"),
    ] {
        check(text, expected);
    }
    assert!(render("{{ wrap 1 (repeat 20002 `x `) }}", &Value::Nil).unwrap_err().contains("10000 lines"));
}

#[test]
fn sprigs_functions_of_decimals_and_durations() {
    for (text, expected) in [
        ("{{ addf 1.5 2 2.25 }} {{ subf 7.5 2 3 }} {{ mulf 1.5 2 2 }} {{ divf 10 4 2 }}", "5.75 2.5 6 1.25"),
        (
            "{{ addf 0.1 0.2 }} {{ mulf 1.1 1.1 }} {{ divf 1 3 }} {{ divf -2 3 }}",
            "0.3 1.21 0.3333333333333333 -0.6666666666666667",
        ),
        ("{{ add1f 1.5 }} {{ toDecimal `777` }} {{ toDecimal 755 }} {{ toDecimal `9` }}", "2.5 511 493 0"),
        (
            "{{ round 123.5555 3 }} {{ round -1.25 1 }} {{ round 3.7 0 }} {{ round 123.15 1 0.6 }}",
            "123.556 -1.3 4 123.1",
        ),
        ("{{ int64 `0x1f` }} {{ int `1.9` }} {{ int `-12` }} {{ atoi `x` }}", "31 1 -12 0"),
        ("{{ duration `3661` }} {{ duration `x` }}", "1h1m1s 0s"),
        ("{{ durationRound `2h10m5s` }} {{ durationRound `2400h10m5s` }} {{ durationRound `30s` }}", "2h 3mo 30s"),
        ("{{ typeOf (list 1) }} {{ typeOf (dict) }} {{ hello }}", "[]interface {} map[string]interface {} Hello!"),
        ("{{ osBase `/a/b.c` }} {{ osDir `/a/b.c` }} {{ osIsAbs `a` }}", "b.c /a false"),
    ] {
        check(text, expected);
    }
    assert!(render("{{ divf 1 0 }}", &Value::Nil).is_err());
    assert!(render("{{ mulf 1e30 1e30 }}", &Value::Nil).is_err(), "beyond what is held exactly");
}

#[test]
fn sprigs_functions_of_expressions_and_sums() {
    for (text, expected) in [
        ("{{ regexMatch `^a.c$` `abc` }} {{ mustRegexMatch `x` `abc` }}", "true false"),
        ("{{ regexFind `[0-9]+` `a12b3` }}|{{ regexFind `z` `a` }}", "12|"),
        ("{{ regexFindAll `[0-9]` `a1b2c3` -1 | join `,` }} {{ regexFindAll `[0-9]` `a1b2` 1 | join `,` }}", "1,2,3 1"),
        ("{{ regexReplaceAll `a(x*)b` `-ab-axxb-` `${1}W` }}", "-W-xxW-"),
        ("{{ regexReplaceAllLiteral `a(x*)b` `-ab-axxb-` `${1}` }}", "-${1}-${1}-"),
        ("{{ regexSplit `z+` `pizza` -1 | join `,` }} {{ regexSplit `z*` `pizza` -1 | join `,` }}", "pi,a p,i,a"),
        ("{{ regexSplit `,` `a,b,c` 2 | join ` ` }} {{ len (regexSplit `,` `a` 0) }}", "a b,c 0"),
        ("{{ regexQuoteMeta `1.2-3{#}` }}", r"1\.2-3\{#\}"),
        ("{{ adler32sum `Wikipedia` }}", "300286872"),
        ("{{ sha1sum `abc` }}", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("{{ sha256sum `abc` }}", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("{{ sha512sum `` | trunc 16 }}", "cf83e1357eefb8bd"),
    ] {
        check(text, expected);
    }
    assert!(render("{{ regexMatch `(` `a` }}", &Value::Nil).is_err());
    assert!(render("{{ regexMatch `(a{1000}){1000}` `a` }}", &Value::Nil).is_err(), "too large");
}

#[test]
fn sprigs_conditions_on_versions() {
    for (condition, version, holds) in [
        ("1.2.3", "1.2.3", true),
        ("=1.2.3", "v1.2.3+build", true),
        ("1.2", "1.2.9", true),
        ("1.x", "1.9.0", true),
        ("*", "4.5.6", true),
        ("!=1.2.3", "1.2.4", true),
        ("!=1.2.x", "1.2.4", false),
        (">1.2", "1.2.9", false),
        (">1.2", "1.3.0", true),
        (">=1.26-0", "1.36.2-eks-1", true),
        (">=1.26.0", "1.36.2-eks-1", false),
        ("<2", "1.99.0", true),
        ("<=1.2", "1.2.9", true),
        ("<=1.2.3", "1.2.4", false),
        ("~1.2.3", "1.2.9", true),
        ("~1.2.3", "1.3.0", false),
        ("~1", "1.9.0", true),
        ("~>1.2", "1.1.0", false),
        ("^1.2.3", "1.9.0", true),
        ("^1.2.3", "2.0.0", false),
        ("^0.2.3", "0.2.9", true),
        ("^0.2.3", "0.3.0", false),
        ("^0.0.3", "0.0.4", false),
        ("^0", "0.9.0", true),
        (">=1.2, <2.0 || >=3", "2.5.0", false),
        (">= 1.2 < 2.0 || >=3", "3.0.0", true),
        ("1.2 - 1.4.5", "1.4.5", true),
        ("1.2 - 1.4.5", "1.4.6", false),
        ("1.2.3-alpha.2", "1.2.3-alpha.2", true),
        (">1.2.3-alpha.2", "1.2.3-alpha.10", true),
        (">1.2.3-alpha", "1.2.3", true),
    ] {
        check(&format!("{{{{ semverCompare `{condition}` `{version}` }}}}"), &holds.to_string());
    }
    check(
        "{{ with semver `v1.2.3-rc.1+b` }}{{ .Major }}.{{ .Minor }}.{{ .Patch }} {{ .Prerelease }} {{ .Metadata }}{{ end }}",
        "1.2.3 rc.1 b",
    );
    for wrong in ["{{ semver `one` }}", "{{ semverCompare `>a` `1.2.3` }}", "{{ semverCompare `>` `1.2.3` }}"] {
        assert!(render(wrong, &Value::Nil).is_err(), "{wrong}");
    }
}

#[test]
fn structs_have_gos_names_and_give_their_own_json_back() {
    let pod = json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "web", "ports": [{ "protocol": "TCP", "containerPort": 80 }] }] },
    });
    let data = view::of_shape(&pod, Shape::pod());
    for (text, expected) in [
        (
            "{{ range .Spec.Containers }}{{ .Name }}{{ range .Ports }}{{ structToJSON . }}{{ end }}{{ end }}",
            r#"web{"containerPort":80,"protocol":"TCP"}"#,
        ),
        (
            "{{ .Metadata.Labels.app }} {{ eq .Spec.ServiceAccountName `` }} {{ eq .Spec.HostNetwork false }}",
            "web true true",
        ),
        ("{{ includeInboundPorts .Spec.Containers }}", "80"),
        ("{{ toYaml (index .Spec.Containers 0).Ports }}", "- containerPort: 80\n  protocol: TCP\n"),
    ] {
        assert_eq!(render(text, &data).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_a_template_makes_is_bounded() {
    let endless = "{{ range until 10000 }}{{ repeat 1000 `x` }}{{ end }}";
    assert_eq!(render(endless, &Value::Nil), Err("makes more than 1048576 bytes".to_owned()));
    let wide = "{{ repeat 100000000 `x` }}";
    assert!(render(wide, &Value::Nil).unwrap_err().contains("makes more than 65536 bytes"));
}

#[test]
fn wrong_templates_are_refused() {
    assert!(render("{{ if }}", &Value::Nil).is_err());
    let error = render("{{ Template_Version }}", &Value::Nil).unwrap_err();
    assert!(error.contains("Template_Version"), "{error}");
    let error = render("{{ fail `no such platform` }}", &Value::Nil).unwrap_err();
    assert!(error.contains("no such platform"), "{error}");
}
