// Whether a report says what it should.
#pragma once

#include <string>

namespace cenote::test {

inline bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace cenote::test
