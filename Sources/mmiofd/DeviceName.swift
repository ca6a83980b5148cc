// SPDX-License-Identifier: Apache-2.0
//
// A device on the command line, by its name.

import ArgumentParser
import ReferenceDevices

/// The name of a device that this program has.
struct DeviceName: CustomStringConvertible {
    let device: ReferenceDevice

    var description: String { device.name }

    /// What `mmiofd vmm` runs on unless told otherwise.
    static let scratch = DeviceName(device: ReferenceDevice.all[0])

    /// The device of that name.
    static func parse(_ name: String) throws -> DeviceName {
        guard let device = ReferenceDevice.named(name) else {
            throw ValidationError("there is no device '\(name)'; `mmiofd emulate --list` lists them")
        }
        return DeviceName(device: device)
    }
}
