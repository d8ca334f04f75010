//! Requests give for each key what the same program gives for all keys, from several threads at once.

use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use quearn::moved::MoveKind;
use quearn::{BackendKind, Session};
use quearn_models::pipelines::requests::REQUESTS;

const SCALE: f64 = 0.01;

#[test]
fn answers_are_the_same_from_all_threads() {
    for request in REQUESTS {
        let session = |backend| {
            let mut session = Session::builder().backend(backend).threads(1).build().unwrap();
            let data = request.data(SCALE, &|_| ()).unwrap();
            let keys = request.keys(&data);
            data.bind(&mut session);
            (session, keys)
        };
        let graph = request.graph().unwrap();
        let score = |session: &Session, program: &quearn::Program, key| {
            let outputs = program.run_with(session, &request.given(key).unwrap()).unwrap();
            assert_eq!(outputs.moved().border(), 0);
            let rows = outputs.table("rows").unwrap();
            assert!(rows.num_rows() <= 1, "{}: {rows:?}", request.name);
            rows["p"].as_primitive::<Float32Type>().iter().next().flatten()
        };
        let (slow, keys) = session(BackendKind::Interp);
        let program = slow.compile(&graph).unwrap();
        let expected: Vec<Option<f32>> = (0..30).map(|key| score(&slow, &program, key)).collect();
        assert!(expected.iter().flatten().count() > 10 && score(&slow, &program, keys).is_none());
        let (fast, _) = session(BackendKind::Auto);
        let program = fast.compile(&graph).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for (key, expected) in expected.iter().enumerate() {
                        let own = score(&fast, &program, key);
                        let near = own.zip(*expected).is_some_and(|(a, b)| (a - b).abs() < 1e-4);
                        assert!(own.is_none() && expected.is_none() || near, "{key}: {own:?}, {expected:?}");
                    }
                });
            }
        });
        let outputs = program.run_with(&fast, &request.given(1).unwrap()).unwrap();
        assert_eq!(outputs.moved().bytes(MoveKind::Written), 0, "{}:\n{}", request.name, outputs.moved());
    }
}
