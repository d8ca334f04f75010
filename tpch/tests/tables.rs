//! Generated tables: row counts, types, statistics, and files that are made once.

use quearn_tpch::schema::{self, TABLES};
use quearn_tpch::{catalog, generate};
use std::cell::RefCell;

#[test]
fn tables_are_generated_once_and_typed() {
    let folder = tempfile::tempdir().unwrap();
    let told = RefCell::new(Vec::new());
    let progress = |table: &str, done: u64, total: u64| told.borrow_mut().push((table.to_string(), done, total));
    generate::generate_into(folder.path(), 0.01, &progress).unwrap();
    assert_eq!(told.borrow().len(), 8);
    assert!(told.borrow().iter().all(|(_, done, total)| *done > 0 && done <= total));
    generate::generate_into(folder.path(), 0.01, &|_, _, _| panic!("generated twice")).unwrap();

    let expected = [5, 25, 100, 1_500, 2_000, 8_000, 15_000, 60_175];
    for (name, rows) in TABLES.iter().zip(expected) {
        let table = catalog::load_table(folder.path(), name).unwrap();
        assert_eq!((table.name(), table.rows()), (*name, rows));
        assert_eq!(table.fields(), schema::fields(name));
    }
    let lineitem = catalog::load_table(folder.path(), schema::LINEITEM).unwrap();
    assert!(lineitem.column("l_orderkey").unwrap().stats.sorted);
    let quantity = &lineitem.column("l_quantity").unwrap().stats;
    assert_eq!((quantity.min, quantity.max, quantity.distinct), (Some(100), Some(5_000), Some(50)));
    let orders = catalog::load_table(folder.path(), schema::ORDERS).unwrap();
    assert!(orders.column("o_orderkey").unwrap().stats.unique);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 8, "no temporary files are left");
}

#[test]
fn bad_scales_and_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    for scale in [0.0, 1e-5, -1.0, f64::NAN] {
        let error = generate::generate_into(folder.path(), scale, &|_, _, _| {}).unwrap_err();
        assert!(error.to_string().contains("at least 0.0001"));
    }
    let absent = catalog::load_table(folder.path(), schema::PART).unwrap_err();
    assert!(absent.to_string().contains("part.parquet"), "{absent}");
}
