//! Q16: parts/supplier relationship.

use super::scan;
use crate::schema::{PART, PARTSUPP, SUPPLIER};
use quearn_stage::rep::{Rep, Stage, Table, asc, count_distinct, desc};

/// ```sql
/// select p_brand, p_type, p_size, count(distinct ps_suppkey) as supplier_cnt
/// from partsupp, part
/// where p_partkey = ps_partkey
///   and p_brand <> 'Brand#45' and p_type not like 'MEDIUM POLISHED%'
///   and p_size in (49, 14, 23, 45, 19, 3, 36, 9)
///   and ps_suppkey not in (select s_suppkey from supplier where s_comment like '%Customer%Complaints%')
/// group by p_brand, p_type, p_size
/// order by supplier_cnt desc, p_brand, p_type, p_size
/// ```
pub fn q16(s: &Stage) -> Rep<'_, Table> {
    let parts = scan(s, PART).filter(|r| {
        r.str("p_brand").ne("Brand#45")
            & r.str("p_type").not_like("MEDIUM POLISHED%")
            & r.i32("p_size").is_in([49, 14, 23, 45, 19, 3, 36, 9])
    });
    let blamed = scan(s, SUPPLIER).filter(|r| r.str("s_comment").like("%Customer%Complaints%"));
    scan(s, PARTSUPP)
        .join_anti(blamed, [("ps_suppkey", "s_suppkey")])
        .join_inner(parts, [("ps_partkey", "p_partkey")])
        .group_by(["p_brand", "p_type", "p_size"])
        .agg(|r| [count_distinct("supplier_cnt", r.i32("ps_suppkey"))])
        .sort([desc("supplier_cnt"), asc("p_brand"), asc("p_type"), asc("p_size")])
}
