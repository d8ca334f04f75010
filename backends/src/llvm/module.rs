//! A part of a low module as an LLVM module.

use super::error::{Error, Result};
use super::func::FuncTranslator;
use super::target;
use super::types::{extern_type, function_type};
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::Module as LlvmModule;
use inkwell::types::{AnyType, BasicTypeEnum, FunctionType};
use inkwell::values::{FunctionValue, MetadataValue};
use quearn_stage::low::{ExternId, Func, FuncId, Module, Prim, Ty};

/// Metadata that is attached to many instructions.
#[derive(Clone, Copy)]
pub(super) struct Marks<'ctx> {
    /// Kind of branch weights.
    pub(super) prof: u32,
    /// Weights of a branch that is hardly ever taken.
    pub(super) unlikely: MetadataValue<'ctx>,
    /// Kind of loads from memory that does not change.
    pub(super) invariant: u32,
    /// The node without content.
    pub(super) empty: MetadataValue<'ctx>,
}

impl<'ctx> Marks<'ctx> {
    fn new(cx: &'ctx Context) -> Marks<'ctx> {
        let weight = |w| cx.i32_type().const_int(w, false).into();
        let name = cx.metadata_string("branch_weights").into();
        Marks {
            prof: cx.get_kind_id("prof"),
            unlikely: cx.metadata_node(&[name, weight(1), weight(1 << 20)]),
            invariant: cx.get_kind_id("invariant.load"),
            empty: cx.metadata_node(&[]),
        }
    }
}

/// Translates functions of `low` into one LLVM module.
pub(super) struct ModuleTranslator<'a, 'ctx> {
    pub(super) cx: &'ctx Context,
    pub(super) marks: Marks<'ctx>,
    /// Will instructions be selected by the fast selector?
    pub(super) fast: bool,
    low: &'a Module,
    llvm: LlvmModule<'ctx>,
    attributes: Vec<Attribute>,
}

impl<'a, 'ctx> ModuleTranslator<'a, 'ctx> {
    /// Translates `funcs`, for fast instruction selection or not.
    pub(super) fn translate(
        cx: &'ctx Context,
        low: &'a Module,
        funcs: &[FuncId],
        fast: bool,
    ) -> Result<LlvmModule<'ctx>> {
        let llvm = cx.create_module("quearn");
        let attributes = function_attributes(cx);
        let translator = ModuleTranslator { cx, marks: Marks::new(cx), fast, low, llvm, attributes };
        for &func in funcs {
            let function = translator.function(func);
            for &attribute in &translator.attributes {
                function.add_attribute(AttributeLoc::Function, attribute);
            }
            FuncTranslator::new(&translator, &low.funcs[func.index()], function).run()?;
        }
        Ok(translator.llvm)
    }

    /// The LLVM function of a low function, declared on first use.
    pub(super) fn function(&self, func: FuncId) -> FunctionValue<'ctx> {
        let name = symbol(&self.low.funcs[func.index()]);
        let declare = || self.llvm.add_function(&name, function_type(self.cx, &self.low.funcs[func.index()]), None);
        self.llvm.get_function(&name).unwrap_or_else(declare)
    }

    /// The LLVM function of a declared runtime function.
    pub(super) fn external(&self, callee: ExternId) -> FunctionValue<'ctx> {
        let data = &self.low.externs[callee.index()];
        if let Some(found) = self.llvm.get_function(&data.name) {
            return found;
        }
        let function = self.runtime_function(&data.name, extern_type(self.cx, data));
        for (i, &ty) in (0..).zip(&data.params) {
            self.extend_argument(function, AttributeLoc::Param(i), ty);
        }
        if let Some(ty) = data.ret {
            self.extend_argument(function, AttributeLoc::Return, ty);
        }
        function
    }

    /// A narrow integer fills its register, as C compilers expect from each other; ours is unsigned then.
    fn extend_argument(&self, function: FunctionValue<'ctx>, loc: AttributeLoc, ty: Ty) {
        if matches!(ty.prim, Prim::Bool | Prim::I8 | Prim::I16) {
            function.add_attribute(loc, enum_attribute(self.cx, "zeroext"));
        }
    }

    /// A function of the runtime, declared on first use.
    pub(super) fn runtime_function(&self, name: &str, ty: FunctionType<'ctx>) -> FunctionValue<'ctx> {
        self.llvm.get_function(name).unwrap_or_else(|| {
            let function = self.llvm.add_function(name, ty, None);
            function.add_attribute(AttributeLoc::Function, enum_attribute(self.cx, "nounwind"));
            function
        })
    }

    /// The declaration of an intrinsic, overloaded on `types`.
    pub(super) fn intrinsic(&self, name: &'static str, types: &[BasicTypeEnum<'ctx>]) -> Result<FunctionValue<'ctx>> {
        let declared = Intrinsic::find(name).and_then(|i| i.get_declaration(&self.llvm, types));
        declared.ok_or_else(|| {
            let types: Vec<_> = types.iter().map(|t| t.print_to_string().to_string()).collect();
            Error::new(format!("no intrinsic {name} for {}", types.join(", ")))
        })
    }
}

/// The symbol of a low function: unlike any of the runtime or of the C library, whatever its name is.
pub(super) fn symbol(func: &Func) -> String {
    format!("q.{}", func.name)
}

fn function_attributes(cx: &Context) -> Vec<Attribute> {
    let mut attributes = vec![enum_attribute(cx, "nounwind")];
    if target::has_avx512() {
        attributes.push(cx.create_string_attribute("prefer-vector-width", "512"));
    }
    attributes
}

fn enum_attribute(cx: &Context, name: &str) -> Attribute {
    cx.create_enum_attribute(Attribute::get_named_enum_kind_id(name), 0)
}
