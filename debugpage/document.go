package debugpage

import (
	"html"
	"html/template"
	"regexp"
	"strings"
)

// A page is a page of the documentation as HTML.
type page struct {
	Title string
	Body  template.HTML
}

// The markup of the documentation within a line.
var (
	mdCode = regexp.MustCompile("`([^`]*)`")
	mdBold = regexp.MustCompile(`\*\*([^*]+)\*\*`)
	mdLink = regexp.MustCompile(`\[([^\]]*)\]\(([^)]*)\)`)
	// The placeholder of a piece that is finished.
	mdDone = regexp.MustCompile("\x00(\\d+)\x00")
)

// document converts a page of docs/deadlock to HTML. It supports the Markdown
// that these pages use: headings, paragraphs, lists, tables, code blocks, and
// in a line code, bold text and links. Links to pages that are not served
// become text.
func document(text string) page {
	var p page
	var b strings.Builder
	var paragraph []string
	open := "" // the element around the lines that come: ul or table
	flush := func() {
		if len(paragraph) == 0 {
			return
		}
		tag := "p"
		if open == "ul" {
			tag = "li"
		}
		b.WriteString("<" + tag + ">" + inline(strings.Join(paragraph, "\n")) + "</" + tag + ">\n")
		paragraph = nil
	}
	within := func(element string) {
		flush()
		if open == element {
			return
		}
		if open != "" {
			b.WriteString("</" + open + ">\n")
		}
		if open = element; open != "" {
			b.WriteString("<" + open + ">\n")
		}
	}
	code := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		bare := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(bare, "```"):
			within("")
			if code = !code; code {
				b.WriteString(`<pre tabindex="0"><code>`)
			} else {
				b.WriteString("</code></pre>\n")
			}
		case code:
			b.WriteString(html.EscapeString(line) + "\n")
		case bare == "":
			flush()
			if open == "table" {
				within("")
			}
		case strings.HasPrefix(line, "#"):
			within("")
			title := strings.TrimLeft(line, "#")
			n := string(rune('0' + len(line) - len(title)))
			if p.Title == "" {
				p.Title = strings.TrimSpace(title)
			}
			b.WriteString("<h" + n + ">" + inline(strings.TrimSpace(title)) + "</h" + n + ">\n")
		case strings.HasPrefix(line, "- "):
			within("ul")
			paragraph = []string{line[2:]}
		case strings.HasPrefix(line, "|"):
			within("table")
			if strings.Trim(line, "|-: ") == "" {
				continue // below the head
			}
			b.WriteString("<tr>")
			for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
				b.WriteString("<td>" + inline(strings.TrimSpace(cell)) + "</td>")
			}
			b.WriteString("</tr>\n")
		default:
			if open == "ul" && len(paragraph) == 0 || open == "table" {
				within("")
			}
			paragraph = append(paragraph, bare)
		}
	}
	within("")
	p.Body = template.HTML(b.String())
	return p
}

// inline converts a paragraph to HTML. It sets code aside first, because
// nothing inside code is markup.
func inline(text string) string {
	var done []string
	aside := func(s string) string {
		done = append(done, s)
		return "\x00" + string(rune('0'+len(done)-1)) + "\x00"
	}
	text = mdCode.ReplaceAllStringFunc(text, func(s string) string {
		if len(done) >= 10 {
			return s
		}
		return aside("<code>" + html.EscapeString(strings.Trim(s, "`")) + "</code>")
	})
	text = html.EscapeString(text)
	text = mdBold.ReplaceAllString(text, "<b>$1</b>")
	text = mdLink.ReplaceAllStringFunc(text, func(s string) string {
		m := mdLink.FindStringSubmatch(s)
		name, isPage := strings.CutSuffix(m[2], ".md")
		if !isPage || strings.ContainsAny(name, "/:#") {
			return m[1]
		}
		return `<a href="` + name + `">` + m[1] + "</a>"
	})
	return mdDone.ReplaceAllStringFunc(text, func(s string) string { return done[s[1]-'0'] })
}
