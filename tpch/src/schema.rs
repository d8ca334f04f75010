//! Names and types of the eight tables, as the specification has them.
//!
//! Identifiers and integers are 32-bit, which hold every key up to scale factor 300.

use quearn_stage::graph::{Field, Scalar};

/// `region`.
pub const REGION: &str = "region";
/// `nation`.
pub const NATION: &str = "nation";
/// `supplier`.
pub const SUPPLIER: &str = "supplier";
/// `customer`.
pub const CUSTOMER: &str = "customer";
/// `part`.
pub const PART: &str = "part";
/// `partsupp`.
pub const PARTSUPP: &str = "partsupp";
/// `orders`.
pub const ORDERS: &str = "orders";
/// `lineitem`.
pub const LINEITEM: &str = "lineitem";

/// All tables, small ones first.
pub const TABLES: [&str; 8] = [REGION, NATION, SUPPLIER, CUSTOMER, PART, PARTSUPP, ORDERS, LINEITEM];

const ID: Scalar = Scalar::I32;
const INT: Scalar = Scalar::I32;
const MONEY: Scalar = Scalar::decimal(15, 2);
const DATE: Scalar = Scalar::Date;
const TEXT: Scalar = Scalar::String;

/// The columns of a table, in the specification's order; none of them is ever NULL. Empty if there is no such table.
pub fn fields(table: &str) -> Vec<Field> {
    columns(table).iter().map(|(name, scalar)| Field::new(*name, *scalar)).collect()
}

fn columns(table: &str) -> &'static [(&'static str, Scalar)] {
    match table {
        REGION => &[("r_regionkey", ID), ("r_name", TEXT), ("r_comment", TEXT)],
        NATION => &[("n_nationkey", ID), ("n_name", TEXT), ("n_regionkey", ID), ("n_comment", TEXT)],
        SUPPLIER => &[
            ("s_suppkey", ID),
            ("s_name", TEXT),
            ("s_address", TEXT),
            ("s_nationkey", ID),
            ("s_phone", TEXT),
            ("s_acctbal", MONEY),
            ("s_comment", TEXT),
        ],
        CUSTOMER => &[
            ("c_custkey", ID),
            ("c_name", TEXT),
            ("c_address", TEXT),
            ("c_nationkey", ID),
            ("c_phone", TEXT),
            ("c_acctbal", MONEY),
            ("c_mktsegment", TEXT),
            ("c_comment", TEXT),
        ],
        PART => &[
            ("p_partkey", ID),
            ("p_name", TEXT),
            ("p_mfgr", TEXT),
            ("p_brand", TEXT),
            ("p_type", TEXT),
            ("p_size", INT),
            ("p_container", TEXT),
            ("p_retailprice", MONEY),
            ("p_comment", TEXT),
        ],
        PARTSUPP => &[
            ("ps_partkey", ID),
            ("ps_suppkey", ID),
            ("ps_availqty", INT),
            ("ps_supplycost", MONEY),
            ("ps_comment", TEXT),
        ],
        ORDERS => &[
            ("o_orderkey", ID),
            ("o_custkey", ID),
            ("o_orderstatus", TEXT),
            ("o_totalprice", MONEY),
            ("o_orderdate", DATE),
            ("o_orderpriority", TEXT),
            ("o_clerk", TEXT),
            ("o_shippriority", INT),
            ("o_comment", TEXT),
        ],
        LINEITEM => &[
            ("l_orderkey", ID),
            ("l_partkey", ID),
            ("l_suppkey", ID),
            ("l_linenumber", INT),
            ("l_quantity", MONEY),
            ("l_extendedprice", MONEY),
            ("l_discount", MONEY),
            ("l_tax", MONEY),
            ("l_returnflag", TEXT),
            ("l_linestatus", TEXT),
            ("l_shipdate", DATE),
            ("l_commitdate", DATE),
            ("l_receiptdate", DATE),
            ("l_shipinstruct", TEXT),
            ("l_shipmode", TEXT),
            ("l_comment", TEXT),
        ],
        _ => &[],
    }
}
