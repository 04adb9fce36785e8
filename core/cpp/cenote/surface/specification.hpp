// Resources as text: "statistics | pool:max=8GiB | virtual".
//
//     specification = word { "|" word }                  outermost first
//     word          = kind [ ":" parameter { "," parameter } ]
//     parameter     = name "=" value
//
// A value with a comma, a bar or a quote in it stands in double quotes, with "" for a quote: logging:file="a,b.csv".
// The devices of `peers` are a list, "peers=0,1"; all or none.
//
// A size is a number of bytes, a number with a unit (KB = 1000, KiB = 1024), or a percentage of the device's free
// memory. A chain that ends with a pool stands on `virtual`, on a device that has virtual memory; one that ends with
// another kind that needs an upstream stands on `cuda`.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// Makes the resources on `device`. std::invalid_argument names the word that is wrong and the words that are known.
CENOTE_EXPORT std::shared_ptr<memory_resource> make_resource(std::string_view specification, int device);

/// Throws as make_resource does for a word or a value that is wrong. Makes nothing, and calls no driver.
CENOTE_EXPORT void check_specification(std::string_view specification);

/// The words of a specification, outermost first, with the source that stands under it on `device` where it names none.
/// Without a device: on one that has virtual memory; no driver is called then. Throws as check_specification does.
CENOTE_EXPORT std::vector<std::string> specification_words(std::string_view specification,
                                                           std::optional<int> device = std::nullopt);

/// Each kind with its parameters, one a line, for people.
CENOTE_EXPORT std::string known_specifications();

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
