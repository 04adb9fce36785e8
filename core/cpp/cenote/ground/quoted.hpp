// Text in double quotes, so that it may hold what separates words elsewhere: "a,b" is one word, and "" in it a quote.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cenote/ground/export.hpp"

namespace cenote::inline v1 {

std::string_view without_blanks(std::string_view text);

/// `text` as it is, or in quotes where it holds one of `separators`, a quote, or a blank at an end.
CENOTE_EXPORT std::string quoted(std::string_view text, std::string_view separators);

/// The text that quoted() was given. std::invalid_argument for quotes that are not closed, or not at the ends.
std::string unquoted(std::string_view text);

/// The parts between separators that are not in quotes, without the blanks around them.
std::vector<std::string_view> split_unquoted(std::string_view text, char separator);

}  // namespace cenote::inline v1
