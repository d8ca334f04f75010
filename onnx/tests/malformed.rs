//! Files that are no models, and models that are wrong: each is an error that names what is wrong.

mod common;

use common::{attribute, graph, int_tensor, model, node, port, tensor};
use prost::Message;
use quearn_onnx::proto::{AttributeProto, GraphProto, StringStringEntryProto, TensorProto};
use quearn_onnx::{Options, decode, import, read};

fn error(graph: GraphProto) -> String {
    import(&model(graph), None, &Options::default()).err().expect("an error").to_string()
}

fn relu(inputs: &[&str]) -> GraphProto {
    graph(vec![node("Relu", inputs, &["y"], vec![])], vec![], vec![port("x", &["2"])], &["y"])
}

#[test]
fn every_beginning_of_a_file_is_an_error_or_another_model() {
    let bytes = model(graph(
        vec![node("Add", &["x", "w"], &["y"], vec![])],
        vec![tensor("w", &[2], &[1.0, 2.0])],
        vec![port("x", &["2"])],
        &["y"],
    ))
    .encode_to_vec();
    for end in 0..bytes.len() {
        if let Ok(model) = decode(&bytes[..end]) {
            assert!(import(&model, None, &Options::default()).is_err(), "the first {end} bytes");
        }
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        // Whatever it is, it is no panic.
        let _ = decode(&changed).map(|model| import(&model, None, &Options::default()).map(drop));
    }
}

#[test]
fn wrong_graphs() {
    assert!(error(relu(&["y"])).contains("is made by no node before it (a cycle"), "{}", error(relu(&["y"])));
    assert!(error(relu(&["nobody"])).contains("\"nobody\""));
    assert!(error(relu(&[])).contains("input 0 is missing"));
    let unknown = graph(vec![node("Frobnicate", &["x"], &["y"], vec![])], vec![], vec![port("x", &["2"])], &["y"]);
    assert_eq!(error(unknown), "node \"y\" (Frobnicate): the operator is not supported");
    let nothing = graph(vec![], vec![], vec![port("x", &["2"])], &["y"]);
    assert_eq!(error(nothing), "output \"y\": no node makes it");
    let twice = node("Relu", &["x"], &["y"], vec![]);
    let twice = graph(vec![twice.clone(), twice], vec![], vec![port("x", &["2"])], &["y"]);
    assert!(error(twice).contains("\"y\" is made twice"));
    let types = graph(
        vec![node("Add", &["x", "w"], &["y"], vec![])],
        vec![tensor("w", &[3], &[1.0; 3])],
        vec![port("x", &["2"])],
        &["y"],
    );
    assert!(error(types).contains("node \"y\" (Add)"));
}

#[test]
fn names_are_unique() {
    let twice = vec![tensor("w", &[1], &[1.0]), tensor("w", &[1], &[2.0])];
    let weights = graph(vec![node("Relu", &["w"], &["y"], vec![])], twice, vec![], &["y"]);
    assert_eq!(error(weights), "tensor \"w\": there are two tensors of this name");
    let shadow = graph(vec![node("Relu", &["x"], &["x"], vec![])], vec![], vec![port("x", &["2"])], &["x"]);
    assert_eq!(error(shadow), "node \"x\" (Relu): \"x\" is made twice");
}

#[test]
fn sizes_that_nothing_holds() {
    let with = |op: &str, attributes: Vec<_>, shape: &[&str], constants: Vec<TensorProto>| {
        let mut inputs = vec!["x"];
        inputs.extend(constants.iter().map(|c| c.name.as_deref().unwrap()).collect::<Vec<_>>());
        let node = node(op, &inputs, &["y"], attributes);
        error(graph(vec![node], constants.clone(), vec![port("x", shape)], &["y"]))
    };
    let wide = int_tensor("to", &[2], &[1 << 31, 1 << 31]);
    let expanded = with("Expand", vec![], &["1"], vec![wide]);
    assert!(expanded.contains("node \"y\" (Expand)") && expanded.contains("too large"), "{expanded}");
    let pads = int_tensor("pads", &[2], &[1 << 62, 1 << 62]);
    let mode = AttributeProto { name: Some("mode".into()), s: Some(b"reflect".to_vec()), ..Default::default() };
    let padded = with("Pad", vec![mode], &["3"], vec![pads]);
    assert!(padded.contains("node \"y\" (Pad)") && padded.contains("too large"), "{padded}");
    let parts = with("Split", vec![attribute::int("num_outputs", i64::MAX)], &["3"], vec![]);
    assert!(parts.contains("node \"y\" (Split)") && parts.contains("too large"), "{parts}");
    let eye = with("EyeLike", vec![attribute::int("dtype", 1)], &["1048576", "1048576"], vec![]);
    assert!(eye.contains("node \"y\" (EyeLike)") && eye.contains("too large"), "{eye}");
}

fn weight(proto: TensorProto) -> String {
    error(graph(vec![node("Relu", &["w"], &["y"], vec![])], vec![proto], vec![], &["y"]))
}

#[test]
fn wrong_tensors() {
    let short = tensor("w", &[3], &[1.0]);
    assert!(weight(short).contains("tensor \"w\": its shape [3] has 3 elements, found 1"));
    let huge = tensor("w", &[i64::MAX, 8], &[]);
    assert!(weight(huge).contains("is too large"));
    let negative = tensor("w", &[-1], &[]);
    assert!(weight(negative).contains("negative"));
    let small = TensorProto { data_type: Some(17), ..tensor("w", &[1], &[]) };
    assert!(weight(small).contains("tensor \"w\": elements of type FLOAT8E4M3FN are not supported"));
    let text = TensorProto { data_type: Some(8), ..tensor("w", &[1], &[]) };
    assert!(weight(text).contains("its shape [1] has 1 elements, found 0"));
    let text = TensorProto { data_type: Some(8), string_data: vec![b"a".to_vec()], ..tensor("w", &[1], &[]) };
    assert!(weight(text).contains("node \"y\" (Relu): \"w\" holds texts"));
    let raw = TensorProto { raw_data: Some(vec![0; 3]), ..tensor("w", &[1], &[]) };
    assert!(weight(raw).contains("takes 4 bytes, found 3"));
    let port = graph(vec![], vec![], vec![port("x", &["9223372036854775807", "16"])], &["x"]);
    assert!(error(port).contains("too large"));
}

#[test]
fn external_data_stays_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("model");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(folder.path().join("secret"), [0; 8]).unwrap();
    std::fs::write(inside.join("data"), [0, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    let result = |entries: Vec<StringStringEntryProto>| {
        let w = TensorProto { external_data: entries, data_location: Some(1), ..tensor("w", &[2], &[]) };
        let graph = graph(vec![node("Relu", &["w"], &["y"], vec![])], vec![w], vec![], &["y"]);
        std::fs::write(inside.join("m.onnx"), model(graph).encode_to_vec()).unwrap();
        read(inside.join("m.onnx"), &Options::default()).map_err(|e| e.to_string())
    };
    let good = result(vec![entry("location", "data"), entry("offset", "4"), entry("length", "8")]).unwrap();
    assert_eq!(good.weights["w"].as_slice::<f32>().unwrap(), [1.0, 2.0]);
    let wrong = |entries| result(entries).err().expect("an error");
    assert!(wrong(vec![entry("location", "../secret")]).contains("outside the folder"));
    let secret = folder.path().join("secret").display().to_string();
    assert!(wrong(vec![entry("location", &secret)]).contains("outside the folder"));
    assert!(wrong(vec![entry("location", "data"), entry("offset", "8")]).contains("fewer than"));
    assert!(wrong(vec![entry("location", "data"), entry("offset", "-1")]).contains("is no number"));
    assert!(wrong(vec![entry("location", "data"), entry("length", "99")]).contains("its external data has 99"));
    assert!(wrong(vec![]).contains("not named"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path().join("secret"), inside.join("link")).unwrap();
        assert!(wrong(vec![entry("location", "link")]).contains("outside the folder"));
    }
}
