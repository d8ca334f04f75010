//! Q2: minimum cost supplier.

use super::{nations_of, scan};
use crate::schema::{PART, PARTSUPP, SUPPLIER};
use quearn_stage::rep::{Rep, Stage, Table, asc, desc, min};

/// ```sql
/// select s_acctbal, s_name, n_name, p_partkey, p_mfgr, s_address, s_phone, s_comment
/// from part, supplier, partsupp, nation, region
/// where p_partkey = ps_partkey and s_suppkey = ps_suppkey
///   and p_size = 15 and p_type like '%BRASS'
///   and s_nationkey = n_nationkey and n_regionkey = r_regionkey and r_name = 'EUROPE'
///   and ps_supplycost = (select min(ps_supplycost)
///                        from partsupp, supplier, nation, region
///                        where p_partkey = ps_partkey and s_suppkey = ps_suppkey
///                          and s_nationkey = n_nationkey and n_regionkey = r_regionkey and r_name = 'EUROPE')
/// order by s_acctbal desc, n_name, s_name, p_partkey
/// limit 100
/// ```
pub fn q02(s: &Stage) -> Rep<'_, Table> {
    let brass = scan(s, PART).filter(|r| r.i32("p_size").eq(15) & r.str("p_type").like("%BRASS"));
    let suppliers = scan(s, SUPPLIER).join_inner(nations_of(s, "EUROPE"), [("s_nationkey", "n_nationkey")]);
    let offers = scan(s, PARTSUPP).join_semi(brass, [("ps_partkey", "p_partkey")]);
    let cheapest = offers
        .join_semi(suppliers, [("ps_suppkey", "s_suppkey")])
        .group_by(["ps_partkey"])
        .agg(|r| [min("least_cost", r.decimal("ps_supplycost"))])
        .rename("ps_partkey", "partkey");
    offers
        .join_inner(cheapest, [("ps_partkey", "partkey")])
        .filter(|r| r.decimal("ps_supplycost").eq(r.decimal("least_cost")))
        .join_inner(suppliers, [("ps_suppkey", "s_suppkey")])
        .join_inner(brass, [("ps_partkey", "p_partkey")])
        .select(["s_acctbal", "s_name", "n_name", "p_partkey", "p_mfgr", "s_address", "s_phone", "s_comment"])
        .sort([desc("s_acctbal"), asc("n_name"), asc("s_name"), asc("p_partkey")])
        .limit(100)
}
