//! Q21: suppliers who kept orders waiting.

use super::scan;
use crate::schema::{LINEITEM, NATION, ORDERS, SUPPLIER};
use quearn_stage::rep::{Bool, Rep, Row, Stage, Table, asc, desc, max, min, sum, when};

/// ```sql
/// select s_name, count(*) as numwait
/// from supplier, lineitem l1, orders, nation
/// where s_suppkey = l1.l_suppkey and o_orderkey = l1.l_orderkey
///   and o_orderstatus = 'F' and l1.l_receiptdate > l1.l_commitdate
///   and exists (select * from lineitem l2
///               where l2.l_orderkey = l1.l_orderkey and l2.l_suppkey <> l1.l_suppkey)
///   and not exists (select * from lineitem l3
///                   where l3.l_orderkey = l1.l_orderkey and l3.l_suppkey <> l1.l_suppkey
///                     and l3.l_receiptdate > l3.l_commitdate)
///   and s_nationkey = n_nationkey and n_name = 'SAUDI ARABIA'
/// group by s_name
/// order by numwait desc, s_name
/// limit 100
/// ```
///
/// Of an order count its late lines, if it has several suppliers and only one of them is late. Which orders do is told
/// by the least and the largest supplier of all lines and of those that are late.
pub fn q21(s: &Stage) -> Rep<'_, Table> {
    let saudi_arabia = scan(s, NATION).filter(|r| r.str("n_name").eq("SAUDI ARABIA"));
    let suppliers = scan(s, SUPPLIER).join_semi(saudi_arabia, [("s_nationkey", "n_nationkey")]);
    let late = scan(s, LINEITEM).filter(is_late).join_semi(suppliers, [("l_suppkey", "s_suppkey")]);
    let orders =
        scan(s, ORDERS).filter(|r| r.str("o_orderstatus").eq("F")).join_semi(late, [("o_orderkey", "l_orderkey")]);
    let waiting = scan(s, LINEITEM)
        .join_semi(orders, [("l_orderkey", "o_orderkey")])
        .group_by(["l_orderkey"])
        .agg(|r| {
            let supplier = r.i32("l_suppkey");
            [
                min("first", supplier),
                max("last", supplier),
                min("first_late", when(is_late(r)).then(supplier).otherwise(i32::MAX)),
                max("last_late", when(is_late(r)).then(supplier).otherwise(i32::MIN)),
                sum("late", when(is_late(r)).then(1i64).otherwise(0)),
            ]
        })
        .filter(|r| r.i32("first").ne(r.i32("last")) & r.i32("first_late").eq(r.i32("last_late")))
        .group_by(["first_late"])
        .agg(|r| [sum("numwait", r.i64("late"))]);
    suppliers
        .join_inner(waiting, [("s_suppkey", "first_late")])
        .select(["s_name", "numwait"])
        .sort([desc("numwait"), asc("s_name")])
        .limit(100)
}

fn is_late(line: Row<'_>) -> Rep<'_, Bool> {
    line.date("l_receiptdate").gt(line.date("l_commitdate"))
}
