#include "graph/lax.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_DIGITS = 400 };

static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Copies TEXT without blanks around it and without underscores between digits; false when an underscore is elsewhere or it is too long. */
static bool tidy(const char *text, char ret[MAX_DIGITS])
{
    while (is_blank(*text))
        text++;
    size_t len = strlen(text), n = 0;
    while (len > 0 && is_blank(text[len - 1]))
        len--;
    if (len >= MAX_DIGITS)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '_') {
            ret[n++] = text[i];
            continue;
        }
        if (i == 0 || i + 1 >= len || !isdigit((unsigned char)text[i - 1]) || !isdigit((unsigned char)text[i + 1]))
            return false;
    }
    ret[n] = '\0';
    return n > 0;
}

enum lax lax_integer(const char *text, int64_t *ret)
{
    char s[MAX_DIGITS];
    if (!tidy(text, s))
        return LAX_SYNTAX;
    const char *digits = s + (*s == '+' || *s == '-');
    size_t n = strspn(digits, "0123456789");
    const char *rest = digits + n;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0");
    if (n == 0 || *rest != '\0')
        return LAX_SYNTAX;
    errno = 0;
    long long v = strtoll(s, NULL, 10);
    if (errno == ERANGE)
        return LAX_RANGE;
    *ret = v;
    return LAX_OK;
}

enum lax lax_number(const char *text, double *ret)
{
    char s[MAX_DIGITS];
    if (!tidy(text, s))
        return LAX_SYNTAX;
    const char *unsigned_part = s + (*s == '+' || *s == '-');
    if (strcasecmp(unsigned_part, "nan") == 0 || strcasecmp(unsigned_part, "inf") == 0 || strcasecmp(unsigned_part, "infinity") == 0)
        return LAX_RANGE;
    if (s[strspn(s, "+-.0123456789eE")] != '\0')
        return LAX_SYNTAX;
    char *end;
    double v = strtod(s, &end);
    if (*end != '\0' || end == s)
        return LAX_SYNTAX;
    if (!isfinite(v))
        return LAX_RANGE;
    *ret = v;
    return LAX_OK;
}

bool lax_boolean(const char *text, bool *ret)
{
    static const char *const yes[] = {"1", "true", "t", "yes", "y", "on"};
    static const char *const no[] = {"0", "false", "f", "no", "n", "off"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        bool is_yes = strcasecmp(text, yes[i]) == 0;
        if (!is_yes && strcasecmp(text, no[i]) != 0)
            continue;
        *ret = is_yes;
        return true;
    }
    return false;
}

void number_text(double d, char ret[NUMBER_TEXT])
{
    char e[NUMBER_TEXT];
    int precision = 0;
    do
        snprintf(e, sizeof e, "%.*e", precision, d);
    while (strtod(e, NULL) != d && ++precision < 17);
    int exponent = atoi(strchr(e, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        memcpy(ret, e, sizeof e);
        return;
    }
    int decimals = precision - exponent;
    snprintf(ret, NUMBER_TEXT, "%.*f", decimals < 1 ? 1 : decimals, d);
}
