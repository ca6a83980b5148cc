// SPDX-License-Identifier: Apache-2.0
//
// The smallest ELF file that libkmod takes for a module: a .modinfo section and its name.

/// A module file made of nothing but its .modinfo.
enum ModuleImage {
    /// An ELF64 relocatable for x86-64 with these `key=value` entries.
    static func bytes(_ information: [String]) -> [UInt8] {
        let modinfo: [UInt8] = Array(information.map { $0 + "\0" }.joined().utf8)
        let names = Array("\0.modinfo\0.shstrtab\0".utf8)
        let headerSize: UInt64 = 64
        let namesOffset = headerSize + UInt64(modinfo.count)
        let sections = namesOffset + UInt64(names.count)

        var file: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]
        file += [UInt8](repeating: 0, count: 9)
        for field in [1, 62, 1, 0] as [UInt16] { file += little(field) }
        for field in [0, 0, sections] as [UInt64] { file += little(field) }
        file += little(UInt32(0))
        for field in [64, 0, 0, 64, 3, 2] as [UInt16] { file += little(field) }
        file += modinfo + names
        file += section(name: 0, type: 0, offset: 0, size: 0)
        file += section(name: 1, type: 1, offset: headerSize, size: UInt64(modinfo.count))
        file += section(name: 10, type: 3, offset: namesOffset, size: UInt64(names.count))
        return file
    }

    private static func section(name: UInt32, type: UInt32, offset: UInt64, size: UInt64) -> [UInt8] {
        var header: [UInt8] = []
        for field in [name, type] { header += little(field) }
        for field in [0, 0, offset, size] { header += little(field) }
        for field in [0, 0] as [UInt32] { header += little(field) }
        for field in [1, 0] as [UInt64] { header += little(field) }
        return header
    }

    private static func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        (0..<(Value.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }
}
