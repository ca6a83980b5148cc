// SPDX-License-Identifier: Apache-2.0
//
// libkmod's two objects, each with one owner. Its functions return 0 or more, or a negative errno.

import Ckmod
import SystemPackage

/// A libkmod context: one folder of modules, and what modprobe.d says about them.
@safe struct KmodContext: ~Copyable {
    private let raw: OpaquePointer

    /// - Parameter folder: the modules of one kernel; nil means /lib/modules/`uname -r`.
    /// - Throws: ENOMEM.
    init(folder: FilePath?) throws(Errno) {
        let raw =
            if let folder {
                unsafe folder.withPlatformString { unsafe kmod_new($0, nil) }
            } else {
                unsafe kmod_new(nil, nil)
            }
        guard let raw = unsafe raw else { throw .noMemory }
        // What goes wrong comes back as an errno; libkmod need not print it as well.
        unsafe kmod_set_log_priority(raw, 0)
        unsafe self.raw = raw
    }

    deinit {
        unsafe kmod_unref(raw)
    }

    /// The module in a file. C: `kmod_module_new_from_path`.
    ///
    /// - Throws: ENOENT; EINVAL if the name is not that of a module file.
    func module(at path: FilePath) throws(Errno) -> KmodModule {
        var module: OpaquePointer?
        try kmodCall { unsafe path.withPlatformString { unsafe kmod_module_new_from_path(raw, $0, &module) } }
        return try unsafe KmodModule(adopting: module)
    }

    /// The module that /lib/modules has under a name or an alias. C: `kmod_module_new_from_name_lookup`.
    ///
    /// - Throws: ENOENT.
    func module(named name: String) throws(Errno) -> KmodModule {
        var module: OpaquePointer?
        try kmodCall { unsafe kmod_module_new_from_name_lookup(raw, name, &module) }
        return try unsafe KmodModule(adopting: module)
    }

    /// The module that the kernel has or may have under a name, whatever /lib/modules says.
    /// C: `kmod_module_new_from_name`.
    func loadedModule(named name: String) throws(Errno) -> KmodModule {
        var module: OpaquePointer?
        try kmodCall { unsafe kmod_module_new_from_name(raw, name, &module) }
        return try unsafe KmodModule(adopting: module)
    }
}

/// A module that libkmod knows, loaded or not.
@safe struct KmodModule: ~Copyable {
    private let raw: OpaquePointer

    fileprivate init(adopting raw: OpaquePointer?) throws(Errno) {
        // A look-up that finds nothing is no failure to libkmod.
        guard let raw = unsafe raw else { throw .noSuchFileOrDirectory }
        unsafe self.raw = raw
    }

    deinit {
        unsafe kmod_module_unref(raw)
    }

    /// Its name, with underscores.
    var name: String { unsafe String(cString: kmod_module_get_name(raw)) }

    /// Loads the file as it is, without its dependencies. C: `kmod_module_insert_module`.
    func insert(options: String) throws(Errno) {
        try kmodCall { unsafe kmod_module_insert_module(raw, 0, options) }
    }

    /// Loads it after its dependencies; nothing happens if it is loaded. C: `kmod_module_probe_insert_module`.
    ///
    /// `install` commands of modprobe.d are not run: they are shell commands, and would hide what failed.
    func probe(options: String) throws(Errno) {
        let flags = KMOD_PROBE_IGNORE_COMMAND.rawValue
        try kmodCall { unsafe kmod_module_probe_insert_module(raw, flags, options, nil, nil, nil) }
    }

    /// Unloads it, failing at once if it is in use. C: `kmod_module_remove_module`.
    func remove() throws(Errno) {
        try kmodCall { unsafe kmod_module_remove_module(raw, KMOD_REMOVE_NOWAIT.rawValue | KMOD_REMOVE_NOLOG.rawValue) }
    }

    /// The pairs of its .modinfo section. C: `kmod_module_get_info`.
    func information() throws(Errno) -> [(key: String, value: String)] {
        var list: OpaquePointer?
        try kmodCall { unsafe kmod_module_get_info(raw, &list) }
        defer { unsafe kmod_module_info_free_list(list) }
        var pairs: [(key: String, value: String)] = []
        var entry = unsafe list
        while let current = unsafe entry {
            unsafe pairs.append(
                (
                    String(cString: kmod_module_info_get_key(current)),
                    String(cString: kmod_module_info_get_value(current))
                ))
            unsafe entry = kmod_list_next(list, current)
        }
        return pairs
    }
}

private func kmodCall(_ call: () -> CInt) throws(Errno) {
    let result = call()
    if result < 0 { throw Errno(rawValue: -result) }
}
