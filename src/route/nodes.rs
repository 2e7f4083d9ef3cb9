//! Small readers of the server's nodes and lists, for the files of this module that look into queries and plans.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use pgrx::pg_sys::{List, Node, NodeTag};

/// The pointers in a list, null for none.
///
/// # Safety
/// `list` is null or a valid list of pointers to `T`, and stays as it is while the result is used.
pub unsafe fn cells<'a, T>(list: *const List) -> impl Iterator<Item = *mut T> + 'a
where
    T: 'a,
{
    // SAFETY: as for this function.
    let length = if list.is_null() {
        0
    } else {
        // SAFETY: the caller's promise.
        unsafe { (*list).length }
    };
    // SAFETY: the list has that many cells.
    (0..length as usize).map(move |i| unsafe { (*(*list).elements.add(i)).ptr_value.cast::<T>() })
}

/// The pointer at a place of a list, counted from 0; null beyond its end.
///
/// # Safety
/// As for [`cells`].
pub unsafe fn nth<T>(list: *const List, place: usize) -> *mut T {
    // SAFETY: as for this function.
    unsafe {
        if list.is_null() || place >= (*list).length as usize {
            return std::ptr::null_mut();
        }
        (*(*list).elements.add(place)).ptr_value.cast()
    }
}

/// # Safety
/// As for [`cells`].
pub unsafe fn length(list: *const List) -> usize {
    // SAFETY: as for this function.
    if list.is_null() {
        0
    } else {
        // SAFETY: the caller's promise.
        unsafe { (*list).length as usize }
    }
}

/// `node` as a node of this kind, if it is one.
///
/// # Safety
/// `node` is null or valid, and `tag` is that of `T`.
pub unsafe fn cast<T>(node: *mut Node, tag: NodeTag) -> Option<*mut T> {
    // SAFETY: as for this function.
    (!node.is_null() && unsafe { (*node).type_ } == tag).then(|| node.cast())
}

/// The deep copy of a node.
///
/// # Safety
/// `node` is null or valid.
pub unsafe fn copy<T>(node: *const T) -> *mut T {
    // SAFETY: as for this function.
    unsafe { pg_sys::copyObjectImpl(node.cast()).cast() }
}

/// What is under relabelings and implicit casts of one argument.
///
/// # Safety
/// `node` is null or a valid expression.
pub unsafe fn strip(mut node: *mut Node) -> *mut Node {
    // SAFETY: as for this function.
    unsafe {
        loop {
            if let Some(relabel) = cast::<pg_sys::RelabelType>(node, NodeTag::T_RelabelType) {
                node = (*relabel).arg.cast();
            } else if let Some(call) = cast::<pg_sys::FuncExpr>(node, NodeTag::T_FuncExpr)
                && (*call).funcformat == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
                && length((*call).args) == 1
            {
                node = nth((*call).args, 0);
            } else {
                return node;
            }
        }
    }
}
