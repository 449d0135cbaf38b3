//! What must not be linked into firmware: soft-float routines and an allocator, told by the names of symbols.
//!
//! The names are those of compiler-rt and libgcc (`__addsf3`), of the Arm ABI (`__aeabi_fadd`), of C's mathematics
//! (`expf`) and of Rust's own parts in mangled form. Integer helpers (`__aeabi_lmul`, `__udivdi3`) are not among them.

/// Operations of compiler-rt that know modes; in a name the modes follow, then a count of operands.
const OPERATIONS: [&str; 23] = [
    "add", "sub", "mul", "div", "neg", "abs", "pow", "powi", "cmp", "eq", "ne", "lt", "le", "gt", "ge", "unord", "fix",
    "fixuns", "float", "floatun", "extend", "trunc", "copysign",
];

/// Modes with a float in them: half to quadruple, and complex.
const FLOAT_MODES: [&str; 9] = ["hf", "bf", "sf", "df", "xf", "tf", "sc", "dc", "tc"];

/// Modes without.
const INTEGER_MODES: [&str; 3] = ["si", "di", "ti"];

/// Functions of C's mathematics, without the `f` or `l` that may follow.
const MATH: [&str; 42] = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "copysign",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "exp",
    "exp10",
    "exp2",
    "expm1",
    "fabs",
    "fdim",
    "floor",
    "fma",
    "fmax",
    "fmin",
    "fmod",
    "frexp",
    "hypot",
    "ldexp",
    "lgamma",
    "log",
    "log10",
    "log1p",
    "log2",
    "modf",
    "pow",
    "remainder",
    "rint",
    "round",
    "scalbn",
    "sin",
    "sqrt",
    "tan",
];

/// Parts of mangled names that only float code of Rust's own libraries has.
const FLOAT_PATHS: [&str; 7] = [
    "compiler_builtins5float",
    "compiler_builtins4math",
    "17compiler_builtins5float",
    "3fmt5float",
    "3num7flt2dec",
    "3num8flt2dec",
    "_4libm",
];

/// Allocators: names, and parts of names.
const ALLOCATORS: [&str; 10] = [
    "malloc",
    "free",
    "calloc",
    "realloc",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "sbrk",
    "_sbrk",
    "_malloc_r",
];
const ALLOCATOR_PARTS: [&str; 7] =
    ["__rust_alloc", "__rust_dealloc", "__rust_realloc", "__rg_", "__rdl_", "__rust_no_alloc_shim", "_ZN5alloc"];

/// Whether a symbol is a routine of soft float, or other code that only floats need.
pub(crate) fn is_soft_float(name: &str) -> bool {
    FLOAT_PATHS.iter().any(|part| name.contains(part)) || is_arm_float(name) || is_libgcc_float(name) || is_math(name)
}

/// Whether a symbol belongs to an allocator, or to the crate `alloc`.
pub(crate) fn is_allocator(name: &str) -> bool {
    // In Rust's newer mangling a crate is `C`, perhaps `s<disambiguator>_`, then length and name.
    let crate_alloc = name.match_indices("5alloc").any(|(at, _)| {
        let before = &name[..at];
        before.strip_suffix('_').is_some_and(|root| {
            let hash = root.trim_end_matches(|c: char| c.is_ascii_alphanumeric());
            name.starts_with("_R") && (hash.len() < root.len()) && root[hash.len()..].contains("Cs")
        })
    });
    crate_alloc || ALLOCATORS.contains(&name) || ALLOCATOR_PARTS.iter().any(|part| name.contains(part))
}

fn is_arm_float(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("__aeabi_") else { return false };
    // fadd, dmul, f2iz, d2lz, cfcmple, cdrcmple; i2f, ui2d, ul2f, h2f.
    rest.starts_with(['f', 'd', 'h'])
        || rest.starts_with("cf")
        || rest.starts_with("cd")
        || rest.ends_with("2f")
        || rest.ends_with("2d")
}

fn is_libgcc_float(name: &str) -> bool {
    if name.starts_with("__gnu_") && (name.contains("2h") || name.contains("h2")) {
        return true;
    }
    let Some(rest) = name.strip_prefix("__") else { return false };
    let rest = rest.strip_prefix("gnu_").unwrap_or(rest);
    let rest = rest.strip_suffix("vfp").unwrap_or(rest);
    let rest = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    OPERATIONS.iter().filter_map(|operation| rest.strip_prefix(operation)).any(has_float_modes)
}

/// Whether `modes` is nothing but modes, one of them float.
fn has_float_modes(modes: &str) -> bool {
    let bytes = modes.as_bytes();
    if bytes.is_empty() || bytes.len() % 2 == 1 || !modes.is_ascii() {
        return false;
    }
    let mut float = false;
    for mode in bytes.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default()) {
        if FLOAT_MODES.contains(&mode) {
            float = true;
        } else if !INTEGER_MODES.contains(&mode) {
            return false;
        }
    }
    float
}

fn is_math(name: &str) -> bool {
    MATH.contains(&name) || name.strip_suffix(['f', 'l']).is_some_and(|stem| MATH.contains(&stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_float_is_caught() {
        // As they stand in firmware for thumbv6m and riscv32imac with a few floats in it, and in the ABI's tables.
        for name in [
            "__aeabi_fadd",
            "__aeabi_frsub",
            "__aeabi_fmul",
            "__aeabi_fdiv",
            "__aeabi_fcmpun",
            "__aeabi_f2iz",
            "__aeabi_f2d",
            "__aeabi_dadd",
            "__aeabi_dmul",
            "__aeabi_dcmpge",
            "__aeabi_d2ulz",
            "__aeabi_d2f",
            "__aeabi_i2f",
            "__aeabi_ui2d",
            "__aeabi_l2d",
            "__aeabi_ul2f",
            "__aeabi_cfcmple",
            "__aeabi_cdrcmple",
            "__aeabi_h2f",
            "__aeabi_dneg",
            "__addsf3",
            "__adddf3",
            "__subdf3",
            "__muldf3",
            "__mulsf3",
            "__divsf3",
            "__negsf2",
            "__powisf2",
            "__floatsisf",
            "__floatunsidf",
            "__floatundisf",
            "__fixsfsi",
            "__fixunsdfdi",
            "__extendsfdf2",
            "__truncdfsf2",
            "__eqsf2",
            "__gedf2",
            "__ltdf2",
            "__unordsf2",
            "__cmpsf2",
            "__addtf3",
            "__multc3",
            "__divdc3",
            "__mulsc3",
            "__extendhfsf2",
            "__truncsfbf2",
            "__addsf3vfp",
            "__gnu_f2h_ieee",
            "__gnu_h2f_ieee",
            "expf",
            "exp",
            "sqrtf",
            "fmodf",
            "logf",
            "fminl",
            "_RNvNtNtCsjc7sn2q0iDy_17compiler_builtins5float3add8___adddf3",
            "_ZN17compiler_builtins5float3mul8__mulsf317h0123456789abcdefE",
            "_ZN4core3fmt5float52_$LT$impl$u20$core..fmt..Display$u20$for$u20$f32$GT$3fmt17h0123456789abcdefE",
        ] {
            assert!(is_soft_float(name), "{name} slipped through");
        }
    }

    #[test]
    fn integers_are_left_alone() {
        for name in [
            "__aeabi_idiv",
            "__aeabi_idivmod",
            "__aeabi_idiv0",
            "__aeabi_uidiv",
            "__aeabi_uidivmod",
            "__aeabi_lmul",
            "__aeabi_llsl",
            "__aeabi_llsr",
            "__aeabi_lasr",
            "__aeabi_lcmp",
            "__aeabi_ulcmp",
            "__aeabi_ldivmod",
            "__aeabi_uldivmod",
            "__aeabi_memcpy",
            "__aeabi_memcpy4",
            "__aeabi_memset8",
            "__aeabi_memclr",
            "__aeabi_memmove",
            "__aeabi_unwind_cpp_pr0",
            "__aeabi_read_tp",
            "__udivdi3",
            "__umoddi3",
            "__udivmoddi4",
            "__divdi3",
            "__divsi3",
            "__muldi3",
            "__mulsi3",
            "__multi3",
            "__negdi2",
            "__cmpdi2",
            "__ucmpdi2",
            "__addvsi3",
            "__subvdi3",
            "__mulvdi3",
            "__absvsi2",
            "__clzsi2",
            "__ctzdi2",
            "__ashldi3",
            "__lshrdi3",
            "__ashrdi3",
            "__bswapsi2",
            "__popcountsi2",
            "__paritydi2",
            "__ffsdi2",
            "memcpy",
            "memset",
            "memcmp",
            "main",
            "Reset",
            "DefaultHandler",
            "__sbss",
            "__eheap",
            "__sheap",
            "__edata",
            "__etext",
            "__pre_init",
            "__vector_table",
            "expand",
            "round_half_even",
            "log2_q16",
            "rounds",
            "floor_shift",
            "_ZN7ranklet5fixed4exp217h0123456789abcdefE",
            "_RNvNtCs1234_7ranklet5fixed5log2x",
            "_RNvNtNtCsheXoZokrRQM_17compiler_builtins3int19specialized_div_rem11u64_div_rem",
        ] {
            assert!(!is_soft_float(name), "{name} was taken for soft float");
        }
    }

    #[test]
    fn allocators_are_caught() {
        for name in [
            "__rust_alloc",
            "__rust_dealloc",
            "__rust_realloc",
            "__rust_alloc_zeroed",
            "__rg_alloc",
            "__rdl_alloc",
            "malloc",
            "free",
            "_sbrk",
            "_RNvCsfLfy6EI15iL_7___rustc12___rust_alloc",
            "_ZN5alloc7raw_vec12handle_error17h0123456789abcdefE",
            "_RNvNtCs9Fhi7iAbc1_5alloc7raw_vec12handle_error",
        ] {
            assert!(is_allocator(name), "{name} slipped through");
        }
    }

    #[test]
    fn other_names_are_no_allocator() {
        for name in [
            "_ZN7ranklet5arena5alloc17h0123456789abcdefE",
            "_RNvNtCs1234_7ranklet5arena5alloc",
            "__sheap",
            "_heap_size",
            "freeze",
            "mallocs_nothing",
            "_RNvCsfLfy6EI15iL_7___rustc17rust_begin_unwind",
        ] {
            assert!(!is_allocator(name), "{name} was taken for an allocator");
        }
    }
}
